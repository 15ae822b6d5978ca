"""Published weights files: sizes from shapes, the same prefixes, and refusals that say why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.captioner import ClipCap
from model.config import CaptionerConfig, MapperConfig
from model.image import Preprocessing
from model.published import FULL_STOP_ID, read_published
from model.refusal import Refusal

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


@pytest.mark.parametrize("kind", ["mlp", "transformer", "linear"])
def test_sizes_come_from_shapes_and_logits_are_the_same(kind: str, tmp_path: Path):
    original = captioner_of(kind)
    torch.save(as_published(original), tmp_path / "weights.pt")
    ours = read_published(tmp_path / "weights.pt")
    features = torch.randn(3, 48)
    with torch.inference_mode():
        prefix = original.prefix(features)
        assert torch.equal(ours.prefix(features), prefix)
        expected = original.gpt2(inputs_embeds=prefix).logits
        assert torch.allclose(ours.gpt2(inputs_embeds=prefix).logits, expected, atol=1e-6)
    assert ours.config.mapper.prefix_length == 4
    assert ours.config.end_token_is_text


def test_an_unknown_layout_is_refused_with_what_was_found(tmp_path: Path):
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(Refusal, match=r"expected gpt\.transformer.*found encoder\.weight"):
        read_published(tmp_path / "w.pt")


def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path):
    weights = as_published(captioner_of("mlp"))
    weights["clip_project.model.2.bias"] = torch.ones(7)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(Refusal, match="do not fit"):
        read_published(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_file_that_holds_no_weights_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(Refusal, match=r"w\.pt"):
        read_published(tmp_path / "w.pt")


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(Refusal, match="does not exist"):
        read_published(tmp_path / "nowhere.pt")
