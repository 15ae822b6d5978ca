"""Published weights files: sizes from shapes, the same prefixes, and refusals that say why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.pretrained.weights_file import read_published
from model.refusal import Refusal
from tests.published_weights import as_published, captioner_of


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


def test_the_weights_of_clipcap_chinese_are_read(tmp_path: Path):
    original = captioner_of("mlp")
    named = {
        f"gpt2.{name.removeprefix('gpt.')}" if name.startswith("gpt.") else name: value
        for name, value in as_published(original).items()
    }
    torch.save(named, tmp_path / "weights.pt")
    ours = read_published(tmp_path / "weights.pt")
    features = torch.randn(2, 48)
    with torch.inference_mode():
        assert torch.equal(ours.prefix(features), original.prefix(features))
    named["clip_project.bert.encoder.layer.0.attention.self.query.weight"] = torch.ones(2, 2)
    torch.save(named, tmp_path / "weights.pt")
    with pytest.raises(Refusal, match="a mapper that is a BERT"):
        read_published(tmp_path / "weights.pt")


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


class Code:
    """What pickle would run while it loads."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path):
    weights = {**as_published(captioner_of("mlp")), "gpt.code": Code(tmp_path / "was-run")}
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(Refusal, match=r"w\.pt"):
        read_published(tmp_path / "w.pt")
    assert not (tmp_path / "was-run").exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # it would have run
    assert (tmp_path / "was-run").exists()


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(Refusal, match="does not exist"):
        read_published(tmp_path / "nowhere.pt")
