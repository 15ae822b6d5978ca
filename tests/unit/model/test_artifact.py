"""The artifact as a server loads it: of one export, undamaged, or refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.artifact import Artifact, GeneratedCaption
from model.options import BadOption, GenerationOptions
from model.refusal import Refusal


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


@pytest.fixture
def folder(tiny_artifact: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_artifact, tmp_path / "artifact")


@pytest.fixture(scope="module")
def features(artifact: Artifact) -> Tensor:
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return artifact.encode(pixels)


@pytest.mark.parametrize("name", ["captioner.pt", "captioner.json", "tokenizer.json"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(Refusal, match=f"{name} is missing; export the captioner again"):
        Artifact.load(folder)


def test_a_missing_folder_is_refused_with_what_makes_one(tmp_path: Path):
    with pytest.raises(Refusal, match=r"no folder .*/none; .*training.export export.out=.*/none"):
        Artifact.load(tmp_path / "none")


@pytest.mark.parametrize("damage", ["a bit of a weight", "cut short", "empty"])
def test_another_captioner_pt_is_refused(folder: Path, damage: str):
    data = bytearray((folder / "captioner.pt").read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"cut short": data[: len(data) // 2], "empty": b""}
    (folder / "captioner.pt").write_bytes(changed.get(damage, data))
    with pytest.raises(Refusal, match=r"captioner.pt is not the file captioner.json was written f"):
        Artifact.load(folder)


@pytest.mark.parametrize("format_", [0, 2, "3", None])
def test_another_format_is_refused(folder: Path, format_: object):
    info = json.loads((folder / "captioner.json").read_text())
    (folder / "captioner.json").write_text(json.dumps({**info, "format": format_}))
    with pytest.raises(Refusal, match=rf"has format {format_!r}; this version reads 3"):
        Artifact.load(folder)


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe", b'{"format": 1}'])
def test_a_damaged_description_is_refused(folder: Path, content: bytes):
    (folder / "captioner.json").write_bytes(content)
    with pytest.raises(Refusal, match=r"captioner\.json"):
        Artifact.load(folder)


def test_a_damaged_tokenizer_is_refused(folder: Path):
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(Refusal, match="tokenizer.json is no tokenizer"):
        Artifact.load(folder)


def test_packed_layers_are_refused_where_torch_has_no_onednn(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(Refusal, match="was exported in fp32: its layers need oneDNN"):
        Artifact.load(folder)


def test_torch_is_left_as_it_was(tiny_artifact: Path, features: Tensor):
    threads = torch.get_num_threads()
    artifact = Artifact.load(tiny_artifact)
    artifact.tokens(features, GenerationOptions(max_tokens=3))
    with ThreadPoolExecutor(1) as pool:  # as many for those that are yet to begin, too
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads
    assert torch._C._get_graph_executor_optimize()


def test_captions_come_best_first_as_many_as_asked(artifact: Artifact, features: Tensor):
    options = GenerationOptions(num_beams=4, num_captions=3, max_tokens=10)
    images = artifact.caption(features, options)
    assert len(images) == 3
    for captions in images:
        assert len(captions) == 3
        means = [caption.log_prob / caption.tokens for caption in captions]
        assert means == sorted(means, reverse=True)
        assert all(1 <= caption.tokens <= 10 for caption in captions)
        assert all(0 < caption.confidence <= 1 for caption in captions)


def test_confidence_is_the_mean_token_probability():
    caption = GeneratedCaption("a b", log_prob=3 * math.log(0.5), tokens=3)
    assert caption.confidence == pytest.approx(0.5)


def test_its_own_defaults_are_options_it_takes(artifact: Artifact, features: Tensor):
    assert artifact.defaults == GenerationOptions(max_tokens=12)
    assert len(artifact.caption(features, artifact.defaults)) == 3


def test_more_tokens_than_this_model_has_room_for_are_refused(artifact: Artifact, features: Tensor):
    assert artifact.info["max_tokens"] == 60  # 64 positions less a prefix of 4
    artifact.caption(features, GenerationOptions(num_beams=2, max_tokens=60, min_tokens=60))
    for captions_of in (artifact.caption, artifact.tokens):
        with pytest.raises(BadOption, match="max_tokens is '61'; it must be at most 60 here"):
            captions_of(features, GenerationOptions(max_tokens=61))


def test_text_has_single_spaces_and_no_end_token(artifact: Artifact):
    ids = artifact.tokenizer.encode("two red  boats").ids
    end = artifact.info["end_token_id"]
    assert artifact.text([*ids, end]) == "two red boats"
    assert artifact.text(ids) == "two red boats"
    assert artifact.text([end]) == ""
    assert artifact.text([]) == ""


def test_an_end_token_that_is_a_word_stays(artifact: Artifact):
    ids = artifact.tokenizer.encode("a boat").ids
    stop = artifact.tokenizer.encode("sea").ids
    info = {**artifact.info, "end_token_id": stop[-1], "end_token_is_text": True}
    other = Artifact(artifact.module, info, artifact.tokenizer)
    assert other.text([*ids, *stop]) == "a boat sea"


def test_a_caption_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GeneratedCaption("a", -1.0, 1).text = "b"  # type: ignore[misc]
