"""Reads and writes an encoder's preprocessing in Hugging Face's files.

preprocessor_config.json   the image processor alone
processor_config.json      image processor and tokenizer together, as transformers 5 saves them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.image.preprocessing import Preprocessing
from model.pretrained.hugging_face import NOT_FOUND, find
from model.refusal import Refusal

IMAGE_PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"


def read_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of a CLIP or SigLIP.

    Args:
        name: Hugging Face name or folder.

    Raises:
        Refusal: There is no such file, or it describes a preprocessing that `Preprocessing` does
            not support.
    """
    file, fields = _fields(name)
    resamples = {2: "bilinear", 3: "bicubic"}
    resample = fields.get("resample", 3)
    if resample not in resamples:
        raise Refusal(f"{file}: resample is {resample}; it must be 2 (bilinear) or 3 (bicubic)")
    # SigLIP resizes the image to a square without a crop, and its file has no `do_center_crop`.
    siglip = str(fields.get("image_processor_type", "")).startswith("Siglip")
    crop = fields.get("do_center_crop", not siglip)
    try:
        resized = _side(fields["size"], file)
        side = _side(fields["crop_size"], file) if crop and "crop_size" in fields else resized
        mean, std = tuple(fields["image_mean"]), tuple(fields["image_std"])
    except KeyError as error:
        raise Refusal(f"{file} lacks {error}") from None
    if side != resized:
        raise Refusal(
            f"{file} resizes to {resized} and crops to {side}; here the two must be equal"
        )
    return Preprocessing(size=side, mean=mean, std=std, resample=resamples[resample], crop=crop)


def _fields(name: str) -> tuple[Path, dict[str, Any]]:
    """The file with the image processor, and the fields of that."""
    for candidate in (IMAGE_PROCESSOR_FILE, PROCESSOR_FILE):
        try:
            file = find(name, candidate)
            found: Any = json.loads(file.read_text()) if file else None
        except NOT_FOUND as error:
            reason = str(error).strip().splitlines()[0]
            raise Refusal(f"no {candidate} at {name!r}: {reason}") from error
        except ValueError as error:
            raise Refusal(f"{candidate} of {name!r} is not JSON: {error}") from None
        if candidate == PROCESSOR_FILE and isinstance(found, dict):
            found = found.get("image_processor")
        if file and isinstance(found, dict):
            return file, found
    raise Refusal(
        f"no {IMAGE_PROCESSOR_FILE} at {name!r}, nor {PROCESSOR_FILE} with an image_processor; "
        "take them from where the encoder's weights came from"
    )


def _side(size: int | dict[str, int], file: Path) -> int:
    """The side of a square, in pixels, in any of the forms that Hugging Face writes."""
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return size["shortest_edge"]
    height, width = size["height"], size["width"]
    if height != width:
        raise Refusal(f"{file} asks for {height} x {width}; it must be a square")
    return height


def write_preprocessing(preprocessing: Preprocessing, folder: Path) -> None:
    """Write `IMAGE_PROCESSOR_FILE` so that Hugging Face reads the same preprocessing."""
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
    (folder / IMAGE_PROCESSOR_FILE).write_text(json.dumps(fields, indent=2) + "\n")
