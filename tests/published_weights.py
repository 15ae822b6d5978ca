"""Weights files as captioners were published, small and random."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap
from model.pretrained.weights_file import FULL_STOP_ID

HALF = (0.5, 0.5, 0.5)


def captioner_of(kind: str, feature_width: int = 48, vocabulary: int = 90) -> ClipCap:
    torch.manual_seed(3)
    gpt2 = {"vocab_size": vocabulary, "n_positions": 40, "n_embd": 128, "n_layer": 2, "n_head": 2}
    return ClipCap(
        CaptionerConfig(
            clip=None,
            gpt2=gpt2,
            mapper=MapperConfig(kind, prefix_length=4, clip_length=3, layers=2, heads=8),
            preprocessing=Preprocessing(224, HALF, HALF),
            feature_width=feature_width,
            normalize_feature=kind == "transformer",
            end_token_id=FULL_STOP_ID,
        )
    ).eval()


def as_published(captioner: ClipCap) -> dict[str, Tensor]:
    """The layout of the files on the hub, with the buffers old transformers kept."""
    weights = {f"gpt.{k}": v for k, v in captioner.gpt2.state_dict().items()}
    for layer in range(captioner.gpt2.config.n_layer):
        name = f"gpt.transformer.h.{layer}.attn"
        weights[f"{name}.bias"] = torch.ones(1, 1, 40, 40, dtype=torch.uint8)
        weights[f"{name}.masked_bias"] = torch.tensor(-1e4)
    linear = captioner.config.mapper.kind == "linear"
    for key, value in captioner.mapper.state_dict().items():
        weights[f"clip_project.{key.removeprefix('linear.') if linear else key}"] = value
    return weights


def weights_file(folder: Path, kind: str = "mlp", width: int = 24, vocabulary: int = 300) -> Path:
    """A random weights file in the published layout."""
    file = folder / f"{kind}_weights.pt"
    torch.save(as_published(captioner_of(kind, width, vocabulary)), file)
    return file
