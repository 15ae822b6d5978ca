"""The memory benchmark trains by the real command, and reads its memory meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.machine import resident
from benchmarks.memory import VAL_IMAGES, make_data, measure, memory_table
from model.checkpoint import Checkpoint
from model.refusal import Refusal
from training.data.dataset import CaptionDataset


def test_the_training_command_is_measured(tmp_path: Path):
    size = make_data(tmp_path, 1000)
    dataset = CaptionDataset.load(tmp_path / "data")
    train = [caption for i in dataset.ids("train") for caption in dataset.captions[i]]
    assert len(train) == 1000
    assert size == round(sum(len(caption.encode()) for caption in train) / 1e6, 1)
    assert len(dataset.ids("val")) == VAL_IMAGES
    run = measure(tmp_path, batches=1)
    # An interpreter with torch alone has over 100 MB of its own.
    assert run["peak_mb"] > 100
    assert run["cpu_seconds"] > 0
    training = Checkpoint.load(tmp_path / "checkpoint").training
    assert training["training_captions"] == 1000
    # The prior is measured too, with every colour as a token.
    assert "red" in training["pair_prior"]
    assert "goes without" not in (tmp_path / "log").read_text()
    shown = memory_table({"runs": [{"captions": 1000, "caption_mb": size, **run}]})
    figures = f"{size} MB | {run['peak_mb']:.0f} MB | {run['cpu_seconds']:.0f} s"
    assert f"| 1,000 | {figures} |" in shown


def test_a_training_that_fails_is_told(tmp_path: Path):
    with pytest.raises(Refusal, match=r"training\.train failed: .*data"):
        measure(tmp_path, batches=1)


def test_resident_memory_grows_with_what_is_held():
    before = resident(os.getpid())
    held = bytearray(os.urandom(50_000_000))
    after = resident(os.getpid())
    assert after["anonymous"] - before["anonymous"] == pytest.approx(50, abs=5)
    assert after["peak"] >= after["now"] >= after["anonymous"]
    assert len(held) == 50_000_000
