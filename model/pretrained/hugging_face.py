"""Hugging Face folders and names: CLIP, SigLIP, and GPT-2's tokenizer."""

from __future__ import annotations

import functools
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils.hub import cached_file

from model.refusal import Refusal
from model.tokenizer import load_tokenizer

Model = TypeVar("Model", bound=PreTrainedModel)
#: What these libraries raise for a name or folder that is not there, or a network that is down.
NOT_FOUND = (OSError, HfHubHTTPError, LocalEntryNotFoundError)


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
    if found == "clip_vision_model" and kind is not CLIPModel:
        return _load(
            name,
            kind,
            CLIPVisionConfig.from_pretrained(name, local_files_only=only_local(name)),
            option,
        )
    if found != "clip":
        raise unknown(name, found, "here it must be a CLIP (model_type clip)", option)
    config: Any = CLIPConfig.from_pretrained(name, local_files_only=only_local(name))
    config.vision_config.projection_dim = config.projection_dim
    config.text_config.projection_dim = config.projection_dim
    return _load(name, kind, config if kind is CLIPModel else config.vision_config, option)


def load_siglip(name: str, option: str | None = None) -> SiglipVisionModel:
    """The image tower of a SigLIP by Hugging Face name or folder, in fp32.

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
    """What `config.json` of a Hugging Face name or folder says it holds; None if it does not say.

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
    """The refusal of a name or folder in which nothing was recognised.

    Args:
        name: The name or folder.
        found: What `model_type` says of it.
        accepted: What would have been.
        option: What the user gives the name with.
    """
    if found is None and not Path(name).is_dir():
        try:
            cached_file(name, "config.json", local_files_only=only_local(name))
        except NOT_FOUND as error:  # no network, for one
            return Refusal(f"no image encoder at {name!r}: {_not_found(name, error, option)}")
    what = "no config.json that names a model" if found is None else f"a model of type {found!r}"
    return Refusal(f"{name!r} holds {what}; {accepted}")


def _load(name: str, kind: type[Model], config: Any, option: str | None) -> Model:
    """The model of a class, with every weight of it from the folder."""
    loader: Any = kind
    try:
        model, report = loader.from_pretrained(
            name,
            config=config,
            dtype="float32",
            output_loading_info=True,
            local_files_only=only_local(name),
        )
    except NOT_FOUND as error:
        raise Refusal(f"no weights at {name!r}: {_not_found(name, error, option)}") from error
    except SafetensorError as error:
        raise Refusal(f"the weights of {name!r} are damaged: {error}; take a fresh copy") from error
    except RuntimeError as error:  # shapes; the table of them is for --debug
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
        return load_tokenizer(own)  # to the letter; what the library cannot read, it makes up
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
    # Without its files the library makes an empty tokenizer up.
    if not tokenizer.encode("a").ids:
        raise Refusal(_no_tokenizer(name))
    return tokenizer


def only_local(name: str) -> bool:
    """Whether a model can only come from this machine: a folder, or else the hub is out of reach.

    Without a connection the hub's library tries each file again and again, for minutes in all.
    Asked once whether there is anybody, we know.
    """
    if Path(name).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return True
    return _out_of_reach(huggingface_hub.constants.ENDPOINT)


@functools.cache
def _out_of_reach(endpoint: str) -> bool:
    """Whether nobody is there; an answer, or a slow one, leaves the library to its own patience."""
    ask = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(ask, timeout=huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT).close()
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:  # no connection; certificates are the library's affair
        return isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError)
    except (OSError, http.client.HTTPException):  # connected, but slow or confused
        return False
    return False


def _silence() -> None:
    """Leave the talking to our refusals: what matters is checked, and raised."""
    # Loading one tower reports the other's weights as unexpected; the hub reports every retry.
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
    """The library's reason, and what to do."""
    reason = str(error).strip().splitlines()[0]
    advice = "Give a folder made by save_pretrained, or a Hugging Face name with the network up."
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not Path(name).exists():
        advice += (
            f" Without network: fetch the files of https://huggingface.co/{name} into a folder on "
            f"another machine, and give that folder{f' with {option}' if option else ''}."
        )
    return f"{reason} {advice}"
