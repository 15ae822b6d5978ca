"""Weights that stay in the file they were loaded from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from model.artifact import Artifact
from model.layers import memory
from model.options import GenerationOptions


def lies_in(file: Path, address: int) -> bool:
    """Whether an address of this process belongs to a mapping of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        begin, end = (int(each, 16) for each in span.split("-"))
        if begin <= address < end:
            return name.removesuffix(" (deleted)") == str(file)
    return False


@pytest.fixture
def file(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_artifact / "captioner.pt", tmp_path))


@pytest.fixture
def everything_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "MIN_MAPPED_BYTES", 1)
    monkeypatch.setattr(memory, "COMPARED_BYTES", 1000)


@pytest.mark.usefixtures("everything_large")
def test_parameters_are_views_of_the_file_with_the_same_values(file: Path):
    module = torch.jit.load(str(file))
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    memory.map_parameters(module, file)
    for name, each in module.named_parameters():
        assert lies_in(file, each.data_ptr()), name
        assert torch.equal(each, before[name]), name
    embedding = module.search.decoder.wte.weight
    assert embedding.data_ptr() in [each.data_ptr() for each in module.parameters()]


@pytest.mark.usefixtures("everything_large")
def test_captions_stay_when_the_file_is_replaced(tiny_artifact: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    artifact = Artifact.load(folder)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    options = GenerationOptions(num_beams=3, max_tokens=8)
    before = artifact.caption(artifact.encode(pixels), options)
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(folder / "captioner.pt")
    assert artifact.caption(artifact.encode(pixels), options) == before


@pytest.mark.usefixtures("everything_large")
def test_what_the_file_does_not_hold_stays_in_memory(file: Path):
    module = torch.jit.load(str(file))
    changed = module.search.decoder.wte.weight
    with torch.no_grad():
        changed[-1, -1] += 1.0
    after = changed.detach().clone()
    memory.map_parameters(module, file)
    kept = module.search.decoder.wte.weight
    assert torch.equal(kept, after)
    assert not lies_in(file, kept.data_ptr())
