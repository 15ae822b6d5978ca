"""A weights file as the authors of ClipCap published theirs, read into a captioner.

A flat state dict: `gpt.*` is a Hugging Face GPT-2, `clip_project.*` the mapper. ClipCap-Chinese
calls the GPT-2 `gpt2.*`, and its captions end with the token `[SEP]`. Every size is
inferred from shapes, except numbers of heads: GPT-2 has 64 dimensions a head in every published
size, and the transformer mapper has 8 heads. There is no end token: a caption ends at the full
stop.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap
from model.pretrained.sources import CLIP_MEAN, CLIP_STD, CLIPS
from model.refusal import Refusal

#: "." in GPT-2's vocabulary, the token that published captions end with.
FULL_STOP_ID = 13
GPT2_HEAD_WIDTH = 64
MAPPER_HEADS = 8
#: Image side where the width of the features tells no CLIP; `complete` takes the encoder's own.
OTHER_IMAGE_SIDE = 224
#: Buffers that old versions of transformers kept in state dicts.
_BUFFERS = re.compile(r"\.attn\.(bias|masked_bias)$")


def read_published(file: str | Path, normalize_feature: bool | None = None) -> ClipCap:
    """A captioner, without its encoder, from a published weights file.

    Args:
        file: `coco_weights.pt`, `conceptual_weights.pt`, the transformer ones, or another file of
            the same layout.
        normalize_feature: Whether features are divided by their norm first. The file does not
            say; None takes what was published: yes for the transformer mapper, no for others.

    Raises:
        Refusal: Not such a file; says what was found and what was expected.
    """
    file = Path(file)
    weights = _load(file)
    name = "gpt2." if any(key.startswith("gpt2.") for key in weights) else "gpt."
    gpt2 = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
    gpt2 = {k: v for k, v in gpt2.items() if not _BUFFERS.search(k)}
    if any(key.startswith("clip_project.bert.") for key in weights):
        raise Refusal(
            f"{file} has a mapper that is a BERT (clip_project.bert.*), which is not supported; "
            "give weights of ClipCap-Chinese with the MLP mapper"
        )
    mapper = {
        k.removeprefix("clip_project."): v
        for k, v in weights.items()
        if k.startswith("clip_project.")
    }
    try:
        width = gpt2["transformer.wte.weight"].shape[1]
        config, mapper = _infer(gpt2, mapper, width)
    except (KeyError, IndexError) as error:
        raise Refusal(f"{file}: {_expected(weights)} (missing: {error})") from None
    kind = config.mapper.kind
    if normalize_feature is None:
        normalize_feature = kind == "transformer"
    captioner = ClipCap(CaptionerConfig(**{**vars(config), "normalize_feature": normalize_feature}))
    for part, state in ((captioner.gpt2, gpt2), (captioner.mapper, mapper)):
        try:
            part.load_state_dict(state)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()[1:3]]
            raise Refusal(f"{file}: sizes do not fit each other: {' '.join(lines)}") from None
    return captioner.eval()


def _load(file: Path) -> dict[str, Tensor]:
    """The flat state dict, read without running any code in the file."""
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Refusal(f"{file} does not exist; give a published ClipCap weights file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"{file} is no PyTorch weights file, or a damaged one: {reason}") from None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise Refusal(f"{file} holds {type(weights).__name__}, not a flat dictionary of tensors")
    return weights


def _expected(weights: dict[str, Tensor]) -> str:
    found = ", ".join(sorted({".".join(key.split(".")[:2]) for key in weights})[:8])
    return (
        "unknown layout; expected gpt.transformer.* and clip_project.model.{0,2}.*, "
        "clip_project.{weight,bias} or clip_project.{prefix_const,linear,transformer}.*; "
        f"found {found or 'nothing'}"
    )


def _infer(
    gpt2: dict[str, Tensor], mapper: dict[str, Tensor], width: int
) -> tuple[CaptionerConfig, dict[str, Tensor]]:
    """Config and renamed mapper weights, from shapes alone."""
    if "prefix_const" in mapper:
        outputs, features = mapper["linear.weight"].shape
        layers = {key.split(".")[2] for key in mapper if key.startswith("transformer.layers.")}
        sizes = MapperConfig(
            kind="transformer",
            prefix_length=mapper["prefix_const"].shape[0],
            clip_length=outputs // width,
            layers=len(layers),
            heads=MAPPER_HEADS,
        )
    elif "weight" in mapper:
        outputs, features = mapper["weight"].shape
        sizes = MapperConfig(kind="linear", prefix_length=outputs // width)
        mapper = {f"linear.{key}": value for key, value in mapper.items()}
    else:
        features = mapper["model.0.weight"].shape[1]
        sizes = MapperConfig(kind="mlp", prefix_length=mapper["model.2.weight"].shape[0] // width)
    side = CLIPS[features].image_size if features in CLIPS else OTHER_IMAGE_SIDE
    blocks = {key.split(".")[2] for key in gpt2 if key.startswith("transformer.h.")}
    config = CaptionerConfig(
        clip=None,
        gpt2={
            "vocab_size": gpt2["transformer.wte.weight"].shape[0],
            "n_positions": gpt2["transformer.wpe.weight"].shape[0],
            "n_embd": width,
            "n_layer": len(blocks),
            "n_head": max(1, width // GPT2_HEAD_WIDTH),
            "n_inner": gpt2["transformer.h.0.mlp.c_fc.weight"].shape[1],
            "bos_token_id": FULL_STOP_ID,
            "eos_token_id": FULL_STOP_ID,
        },
        mapper=sizes,
        preprocessing=Preprocessing(side, CLIP_MEAN, CLIP_STD),
        feature_width=features,
        normalize_feature=False,
        end_token_id=FULL_STOP_ID,
        end_token_is_text=True,
    )
    return config, mapper
