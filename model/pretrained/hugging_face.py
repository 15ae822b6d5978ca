"""Hugging Face folders and names: CLIP and its relatives, SigLIP, and GPT-2's tokenizer."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AltCLIPConfig,
    AutoTokenizer,
    ChineseCLIPConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    MetaClip2Config,
    PreTrainedModel,
    SiglipConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils.hub import cached_file

from model.pretrained.hub import is_unreachable
from model.refusal import Refusal
from model.tokenizer import load_tokenizer

# For weights in a `.bin` file alone, transformers would start a thread that asks a service outside
# the hub to convert them, and sends it the user's token. Nothing here needs the converted file.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

Model = TypeVar("Model", bound=PreTrainedModel)
#: What these libraries raise for a name or folder that is not there, or a network that is down.
NOT_FOUND = (OSError, HfHubHTTPError, LocalEntryNotFoundError)
#: `model_type` of models whose image tower and projection are CLIP's, down to the names of the
#: weights, and the class of their whole config. Their text towers differ.
CLIP_TYPES = {
    "clip": CLIPConfig,
    "chinese_clip": ChineseCLIPConfig,  # arXiv 2211.01335
    "altclip": AltCLIPConfig,  # arXiv 2211.06679
    "metaclip_2": MetaClip2Config,  # arXiv 2507.22062
}
#: transformers 5 saves an AltCLIP with `layer` in the names of the image tower's weights too.
ALTCLIP_NAMES = {r"^vision_model\.encoder\.layer\.": "vision_model.encoder.layers."}
#: `model_type` of their image towers alone, with the projection.
CLIP_TOWER_TYPES = ("clip_vision_model", "metaclip_2_vision_model")
#: `model_type` of SigLIP and of SigLIP 2 at fixed sizes.
SIGLIP_TYPES = ("siglip", "siglip_vision_model")


def load_clip(name: str, kind: type[Model], option: str | None = None) -> Model:
    """A CLIP (or one of its towers) by Hugging Face name or folder, in fp32.

    Args:
        name: The name or folder.
        kind: Hugging Face's class: both towers, or one.
        option: What the user gives the name with, for the refusal.

    Raises:
        Refusal: No such folder or name, no network, or weights that do not fill the model.
    """
    found = model_type(name, option)
    if kind is CLIPModel:
        if found != "clip":
            raise unknown(name, found, "here it must be a CLIP (model_type clip)", option)
        whole: Any = CLIPConfig.from_pretrained(name, local_files_only=only_local(name))
        whole.vision_config.projection_dim = whole.projection_dim
        whole.text_config.projection_dim = whole.projection_dim
        return _load(name, kind, whole, option)
    if found in CLIP_TOWER_TYPES:
        return _load(name, kind, _clip_tower(name, CLIPVisionConfig), option)
    if found not in CLIP_TYPES:
        raise unknown(name, found, "here it must be a CLIP (model_type clip)", option)
    return _load(name, kind, _clip_tower(name, CLIP_TYPES[found]), option, ALTCLIP_NAMES)


def _clip_tower(name: str, kind: Any) -> CLIPVisionConfig:
    """The config of the image tower of a CLIP or a relative.

    Args:
        name: The name or folder.
        kind: The class of the config there.
    """
    config = kind.from_pretrained(name, local_files_only=only_local(name))
    if kind is CLIPVisionConfig:
        fields = config.to_dict()
    else:
        fields = {**config.vision_config.to_dict(), "projection_dim": config.projection_dim}
    return CLIPVisionConfig(**{**fields, "model_type": CLIPVisionConfig.model_type})


def load_siglip(name: str, option: str | None = None) -> SiglipVisionModel:
    """The image tower of a SigLIP or SigLIP 2 by Hugging Face name or folder, in fp32.

    Args:
        name: The name or folder.
        option: What the user gives the name with, for the refusal.

    Raises:
        Refusal: No network, or weights that do not fill the model.
    """
    own = model_type(name, option) == "siglip_vision_model"
    config: Any = (SiglipVisionConfig if own else SiglipConfig).from_pretrained(
        name, local_files_only=only_local(name)
    )
    return _load(name, SiglipVisionModel, config if own else config.vision_config, option)


def model_type(name: str, option: str | None = None) -> str | None:
    """The `model_type` in `config.json` of a Hugging Face name or folder; None without one.

    Raises:
        Refusal: No such folder or name, or no JSON in the file.
    """
    _silence()
    try:
        file = find(name, "config.json")
        fields: Any = json.loads(file.read_text()) if file else {}
    except NOT_FOUND as error:
        raise Refusal(f"no image encoder at {name!r}: {_not_found(name, error, option)}") from error
    except ValueError as error:
        raise Refusal(f"config.json of {name!r} is not JSON: {error}") from None
    return fields.get("model_type") if isinstance(fields, dict) else None


def find(name: str, file: str) -> Path | None:
    """A file of a Hugging Face name or folder, downloaded if need be; None if it cannot be had.

    Raises:
        OSError: No such folder or name.
    """
    found = cached_file(
        name,
        file,
        local_files_only=only_local(name),
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Path(found)


def unknown(name: str, found: str | None, accepted: str, option: str | None = None) -> Refusal:
    """The refusal of a name or folder that holds no model of a known type.

    Args:
        name: The name or folder.
        found: Its `model_type`.
        accepted: The types that are accepted, in words.
        option: What the user gives the name with.
    """
    if found is None and not Path(name).is_dir():
        try:
            cached_file(name, "config.json", local_files_only=only_local(name))
        except NOT_FOUND as error:  # such as no network
            return Refusal(f"no image encoder at {name!r}: {_not_found(name, error, option)}")
    what = "no config.json that names a model" if found is None else f"a model of type {found!r}"
    return Refusal(f"{name!r} holds {what}; {accepted}")


def _load(
    name: str,
    kind: type[Model],
    config: Any,
    option: str | None,
    renamed: dict[str, str] | None = None,
) -> Model:
    """The model of a class, with every weight of it from the folder.

    Args:
        name: The name or folder.
        kind: The class.
        config: Its sizes.
        option: What the user gives the name with.
        renamed: Patterns in names of the folder's weights, and what stands there in the model.
    """
    loader: Any = kind
    try:
        model, report = loader.from_pretrained(
            name,
            config=config,
            dtype="float32",
            output_loading_info=True,
            key_mapping=renamed,
            local_files_only=only_local(name),
        )
    except NOT_FOUND as error:
        raise Refusal(f"no weights at {name!r}: {_not_found(name, error, option)}") from error
    except SafetensorError as error:
        raise Refusal(f"the weights of {name!r} are damaged: {error}; take a fresh copy") from error
    except RuntimeError as error:  # shapes that differ; the cause holds the table of them
        raise Refusal(
            f"the weights of {name!r} do not have the shapes that its config.json asks for"
        ) from error
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise Refusal(f"the weights of {name!r} lack {len(report['missing_keys'])} tensors: {some}")
    return model


def load_gpt2_tokenizer(name: str, option: str | None = None) -> Tokenizer:
    """GPT-2's tokenizer by Hugging Face name or folder.

    Args:
        name: The name or folder.
        option: What the user gives the name with, for the refusal.

    Raises:
        Refusal: No such folder or name, no network, or no tokenizer there.
    """
    if (own := Path(name) / "tokenizer.json").exists():
        return load_tokenizer(own)  # transformers replaces what it cannot read
    _silence()
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            name, local_files_only=only_local(name)
        ).backend_tokenizer
    except NOT_FOUND as error:
        reason = _not_found(name, error, option)
        raise Refusal(f"no GPT-2 tokenizer at {name!r}: {reason}") from error
    except ValueError as error:
        raise Refusal(_no_tokenizer(name)) from error
    # Without its files transformers returns an empty tokenizer.
    if not tokenizer.encode("a").ids:
        raise Refusal(_no_tokenizer(name))
    return tokenizer


def only_local(name: str) -> bool:
    """Whether a model can only come from this machine: it is a folder, or the hub is unreachable.

    Without a connection the hub's library tries each file several times, for minutes in all. The
    connection is tried once instead, before the first file.
    """
    if Path(name).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return True
    return is_unreachable(huggingface_hub.constants.ENDPOINT)


def _silence() -> None:
    """Switch off the libraries' warnings and progress bars while models are loaded.

    Loading one tower warns that the other's weights are unexpected, and each retry of a download
    warns too. What makes a model unusable is checked here and raised as a `Refusal`.
    """
    library: Any
    for library in (transformers, huggingface_hub):
        library.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _no_tokenizer(name: str) -> str:
    return (
        f"{name!r} has no GPT-2 tokenizer in it; give a folder with tokenizer.json, or with "
        "config.json, vocab.json and merges.txt"
    )


def _not_found(name: str, error: Exception, option: str | None) -> str:
    """The first line of the library's error, and what to do."""
    reason = str(error).strip().splitlines()[0]
    advice = "Give a folder made by save_pretrained, or a Hugging Face name with the network up."
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not Path(name).exists():
        advice += (
            f" Without network: fetch the files of https://huggingface.co/{name} into a folder on "
            f"another machine, and give that folder{f' with {option}' if option else ''}."
        )
    return f"{reason} {advice}"
