"""Two devices train as one does: the same batches, scores of all captions, one of them saves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from tests import ROOT
from tests.training_runs import Variant, rows, settings_as_words, weights
from training.captioner.train import train
from training.config import Config


def test_two_devices_train_as_one_does(variant: Variant, tiny_run: Config):
    # Batches that two devices cannot halve, and a moving average of the weights.
    trainer = {**tiny_run.train.trainer, "log_every_n_steps": 1}
    one, two = (variant(name, batch_size=31, ema=0.5, trainer=trainer) for name in ("one", "two"))
    train(one)
    work = Path(two.train.work)
    work.mkdir(parents=True)
    (work / "last.ckpt").write_text("of an interrupted run")
    # The second process is started with this command too.
    command = [sys.executable, "-m", "training.train", *settings_as_words(two)]
    command += ["train.trainer.devices=2", "train.trainer.strategy=ddp"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (work.with_name("work.previous") / "last.ckpt").read_text() == "of an interrupted run"
    assert not work.with_name("work.previous-2").exists()
    assert done.stderr.count("is kept, with val_CIDEr") == 1  # only one process saves

    expected, found = weights(one.train.out), weights(two.train.out)
    # All weights together: of one whose gradient is next to nothing, AdamW makes a whole step of
    # the difference that rounding makes.
    alone, shared = (
        torch.cat([each[name].flatten() for name in expected if not name.startswith("clip.")])
        for each in (expected, found)
    )
    assert (alone - shared).norm() < 1e-3 * alone.norm()
    for table in ("loss.csv", "validation.csv"):
        pairs = zip(*(rows(Path(c.train.curves) / table) for c in (one, two)), strict=True)
        for own, theirs in pairs:
            assert [*map(float, own.values())] == pytest.approx(
                [*map(float, theirs.values())], abs=2e-3
            )
    last = torch.load(work / "last.ckpt", weights_only=True)
    assert last["lr_schedulers"][0]["_last_lr"] == [0.0, 0.0]
    records = [Checkpoint.load(config.train.out).training or {} for config in (one, two)]
    assert [record.pop("devices") for record in records] == [1, 2]
    scores = [record.pop("validation_CIDEr") for record in records]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    assert records[0] == records[1]
    assert records[0]["optimiser_steps"] == last["global_step"]
