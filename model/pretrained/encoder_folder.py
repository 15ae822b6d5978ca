"""Loads an image encoder by name or folder; the files in it tell its kind.

    config.json with model_type clip or siglip    Hugging Face, with preprocessor_config.json
    open_clip_config.json with a ResNet in it     open_clip, with open_clip_model.safetensors

Some folders hold the files of both kinds; then the first is taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import CLIPVisionModelWithProjection

from model.image.preprocessing import Preprocessing
from model.network.encoder import ClipEncoder, ImageEncoder, ResNetEncoder, SiglipEncoder
from model.pretrained.hugging_face import (
    CLIP_TOWER_TYPES,
    CLIP_TYPES,
    SIGLIP_TYPES,
    find,
    load_clip,
    load_siglip,
    model_type,
    unknown,
)
from model.pretrained.preprocessor_config import read_preprocessing
from model.pretrained.sources import CLIP_MEAN, CLIP_STD
from model.refusal import Refusal

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
ACCEPTED = (
    "an image encoder is a CLIP or SigLIP of Hugging Face (model_type "
    f"{', '.join((*CLIP_TYPES, *CLIP_TOWER_TYPES, *SIGLIP_TYPES))} in config.json), or a ResNet "
    f"of open_clip ({OPEN_CLIP_CONFIG})"
)
#: `model_type` of SigLIP 2 at any size ("NaFlex").
NAFLEX_TYPES = ("siglip2", "siglip2_vision_model")
#: open_clip's preprocessing where the folder does not give another (arXiv 2103.00020).
OPEN_CLIP_PREPROCESSING: dict[str, Any] = {
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def load_encoder(name: str, option: str | None = None) -> tuple[ImageEncoder, Preprocessing]:
    """An image encoder in fp32, and its preprocessing.

    Args:
        name: Hugging Face name or folder.
        option: The command-line option or setting that the name came from, for the message.

    Raises:
        Refusal: There is nothing at the name, no network, no such encoder, files that are damaged
            or contradict each other, or open_clip is needed and not installed.
    """
    found = model_type(name, option)
    encoder: ImageEncoder
    if found in CLIP_TYPES or found in CLIP_TOWER_TYPES:
        encoder = ClipEncoder(load_clip(name, CLIPVisionModelWithProjection, option))
        preprocessing = read_preprocessing(name)
    elif found in SIGLIP_TYPES:
        encoder, preprocessing = SiglipEncoder(load_siglip(name, option)), read_preprocessing(name)
    elif found in NAFLEX_TYPES:
        raise Refusal(
            f"{name!r} is a SigLIP 2 that takes pictures of any shape (NaFlex, model_type "
            f"{found}), but here each picture becomes a square of one size; take one with a fixed "
            "size, such as google/siglip2-base-patch16-224"
        )
    elif (file := find(name, OPEN_CLIP_CONFIG)) is not None:
        encoder, preprocessing = _load_open_clip(name, file)
    else:
        raise unknown(name, found, ACCEPTED, option)
    if encoder.image_size != preprocessing.size:
        raise Refusal(
            f"{name!r} makes {preprocessing.size} pixels (preprocessor_config.json), but its image "
            f"tower takes {encoder.image_size} (config.json); take a fresh copy"
        )
    return encoder, preprocessing


def _load_open_clip(name: str, file: Path) -> tuple[ResNetEncoder, Preprocessing]:
    """CLIP's ResNet from open_clip's files."""
    try:
        fields = json.loads(file.read_text())
        sizes = fields["model_cfg"]
        vision, given = sizes["vision_cfg"], fields.get("preprocess_cfg", {})
        layers = vision["layers"]
        if not isinstance(layers, list):
            raise Refusal(
                f"{file} describes a vision transformer; only ResNets are read from open_clip's "
                "files: take the same model from Hugging Face (config.json with model_type clip)"
            )
        config = {
            "model_type": "open_clip_resnet",
            "image_size": vision["image_size"],
            "width": vision["width"],
            "layers": layers,
            "embed_dim": sizes["embed_dim"],
        }
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise Refusal(f"{file} is not open_clip's: missing or unknown {error}") from None
    preprocessing = _open_clip_preprocessing(file, given, config["image_size"])
    encoder = ResNetEncoder(config)
    weights = find(name, OPEN_CLIP_WEIGHTS)
    if weights is None:
        raise Refusal(f"{name!r} has no {OPEN_CLIP_WEIGHTS}; take a complete copy")
    try:
        with safe_open(weights, "pt") as opened:
            names = [name for name in opened.keys() if name.startswith("visual.")]  # noqa: SIM118
            tower = {name: opened.get_tensor(name).float() for name in names}
    except SafetensorError as error:
        raise Refusal(f"the weights of {name!r} are damaged: {error}; take a fresh copy") from None
    try:
        encoder.load_state_dict(tower)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:2]]
        raise Refusal(f"the weights of {name!r} do not fit {OPEN_CLIP_CONFIG}: {lines}") from None
    return encoder, preprocessing


def _open_clip_preprocessing(file: Path, given: dict[str, Any], side: int) -> Preprocessing:
    """The preprocessing that open_clip's file describes, for images of this side in pixels."""
    fields = {**OPEN_CLIP_PREPROCESSING, **given}
    crops = {"shortest": True, "squash": False}
    if fields["resize_mode"] not in crops:
        raise Refusal(
            f"{file}: resize_mode is {fields['resize_mode']!r}; it must be shortest or squash"
        )
    return Preprocessing(
        size=side,
        mean=tuple(fields["mean"]),
        std=tuple(fields["std"]),
        resample=fields["interpolation"],
        crop=crops[fields["resize_mode"]],
    )
