"""Hugging Face CLIP folders and names: loading them, and their preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import transformers
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import CLIPConfig, CLIPModel, PreTrainedModel
from transformers.utils import cached_file

from model.image import Preprocessing
from model.refusal import Refusal

Model = TypeVar("Model", bound=PreTrainedModel)


def load_clip(name: str, kind: type[Model]) -> Model:
    """A CLIP (or one of its towers) by Hugging Face name or folder, in fp32.

    Raises:
        Refusal: No such folder or name, no network, or weights that do not fill the model.
    """
    # Loading one tower reports the other's weights as unexpected; what matters is checked below.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = CLIPConfig.from_pretrained(name)
        config.vision_config.projection_dim = config.projection_dim
        config.text_config.projection_dim = config.projection_dim
        model, report = kind.from_pretrained(
            name,
            config=config if kind is CLIPModel else config.vision_config,
            dtype="float32",
            output_loading_info=True,
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise Refusal(
            f"no CLIP at {name!r}: {str(error).splitlines()[0]} Give a folder made by "
            "save_pretrained, or a Hugging Face name with the network up."
        ) from error
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise Refusal(f"the weights of {name!r} lack {len(report['missing_keys'])} tensors: {some}")
    return model


def read_preprocessing(name: str) -> Preprocessing:
    """The preprocessing that a CLIP was trained with, from its `preprocessor_config.json`."""
    file = cached_file(name, "preprocessor_config.json")
    fields: dict[str, Any] = json.loads(Path(file).read_text())
    size = fields.get("crop_size", fields.get("size"))
    side = size if isinstance(size, int) else size.get("height", size.get("shortest_edge"))
    resamples = {2: "bilinear", 3: "bicubic"}
    resample = fields.get("resample", 3)
    if resample not in resamples:
        raise Refusal(f"{file}: resample is {resample}; it must be 2 (bilinear) or 3 (bicubic)")
    return Preprocessing(
        size=side,
        mean=tuple(fields["image_mean"]),
        std=tuple(fields["image_std"]),
        resample=resamples[resample],
        crop=fields.get("do_center_crop", True),
    )


def write_preprocessing(preprocessing: Preprocessing, folder: Path) -> None:
    """Write `preprocessor_config.json` so that Hugging Face reads the same preprocessing."""
    side = preprocessing.size
    fields = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if preprocessing.crop else {"height": side, "width": side},
        "resample": {"bilinear": 2, "bicubic": 3}[preprocessing.resample],
        "do_center_crop": preprocessing.crop,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(fields, indent=2) + "\n")
