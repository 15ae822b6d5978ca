"""A training that does not get better ends early, and says which epoch is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training_runs import Variant, rows
from training.captioner.module import CaptionerModule
from training.captioner.train import train


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "kept"),
    [
        ([0.3, 0.2, 0.1, 0.9], 2, 3, 1),
        ([0.3, 0.2, 0.4, 0.1], 2, 4, 3),  # better within the patience
        ([0.3, 0.2, 0.1, 0.9], 0, 4, 4),  # off
        ([0.0, 0.0, 0.0, 0.0], 1, 4, 4),  # CIDEr still 0, but the loss falls
    ],
)
def test_it_ends_after_so_many_validations_that_are_not_better(
    variant: Variant,
    scores: list[float],
    patience: int,
    epochs: int,
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    left = iter(scores)
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(left))
    config = variant(epochs=4, patience=patience)
    train(config)
    assert len(rows(Path(config.train.curves) / "validation.csv")) == epochs
    best = torch.load(Path(config.train.work) / "best.ckpt", weights_only=True)
    assert best["epoch"] == kept - 1
    said = capsys.readouterr().err
    assert f"note: epoch {kept} of 4 is kept, with val_CIDEr {scores[kept - 1]:.4f}" in said
    early = "training ended early, 2 validations in a row were not better"
    assert (early in said) == (epochs < 4)


def test_a_run_that_ended_early_is_not_trained_on_when_it_is_saved_again(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    left = iter([0.3, 0.2])
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(left))
    train(variant(epochs=4, patience=1))
    config = variant(epochs=4, patience=1, resume=True)
    monkeypatch.setattr(CaptionerModule, "training_step", lambda *_: pytest.fail("trained on"))
    train(config)
    assert Path(config.train.out).exists()
