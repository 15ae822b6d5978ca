"""The steps of a training: gradients accumulated and clipped, smoothed labels, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training_runs import Variant, rows
from training.captioner.module import CaptionerModule
from training.captioner.train import train
from training.config import Config

pytestmark = pytest.mark.usefixtures("no_score")


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """All gradients as the optimiser gets them, in one row for each step."""
    seen: list[Tensor] = []
    step = CaptionerModule.optimizer_step

    def watched(module: CaptionerModule, *rest: Any, **named: Any) -> None:
        step(module, *rest, **named)
        seen.append(torch.cat([p.grad.flatten() for p in module.parameters()]).clone())

    monkeypatch.setattr(CaptionerModule, "optimizer_step", watched)
    return seen


def test_gradients_of_small_batches_add_up_to_that_of_a_large_one(
    variant: Variant, tiny_run: Config, gradients: list[Tensor]
):
    whole = {**tiny_run.train.trainer, "gradient_clip_val": None}
    train(variant("whole", batch_size=32, epochs=1, trainer=whole))
    parts = {**whole, "accumulate_grad_batches": 4}
    large, steps = gradients[0], len(gradients)
    gradients.clear()
    train(variant("parts", batch_size=8, epochs=1, trainer=parts))
    assert len(gradients) == steps
    similar = torch.nn.functional.cosine_similarity(large, gradients[0], dim=0)
    assert similar > 0.99  # the mean of the batches' means is not quite that of all tokens
    assert gradients[0].norm() == pytest.approx(float(large.norm()), rel=0.05)


def test_gradients_are_clipped_after_they_were_accumulated(
    variant: Variant, tiny_run: Config, gradients: list[Tensor]
):
    for value in (None, 0.01):
        own = {"gradient_clip_val": value, "accumulate_grad_batches": 2}
        trainer = {**tiny_run.train.trainer, **own}
        train(variant(f"clipped at {value}", epochs=1, trainer=trainer))
    free, clipped = gradients[:3], gradients[3:]
    assert all(gradient.norm() > 0.02 for gradient in free)
    assert [float(g.norm()) for g in clipped] == pytest.approx([0.01] * 3, rel=1e-3)


def test_smoothed_labels_are_trained_on_and_not_validated(variant: Variant, tiny_run: Config):
    trainer = {**tiny_run.train.trainer, "log_every_n_steps": 1}
    losses = []
    for name, smoothing, rate in (("plain", 0.0, 1e-9), ("smoothed", 0.9, 1e-9)):
        own = {"label_smoothing": smoothing, "learning_rate": rate, "epochs": 1}
        config = variant(name, trainer=trainer, **own)
        train(config)
        curves = Path(config.train.curves)
        losses.append((rows(curves / "loss.csv"), rows(curves / "validation.csv")))
    (plain, plain_val), (smoothed, smoothed_val) = losses
    assert float(plain[0]["train_loss"]) != pytest.approx(
        float(smoothed[0]["train_loss"]), abs=1e-4
    )
    assert float(plain_val[0]["val_loss"]) == pytest.approx(float(smoothed_val[0]["val_loss"]))


@pytest.mark.parametrize("own", [{}, {"precision": "bf16-mixed", "ema": 0.9, "workers": 1}])
def test_one_seed_gives_the_same_bytes(variant: Variant, own: dict[str, Any]):
    found = []
    for name in ("one", "two"):
        config = variant(name, word_dropout=0.2, epochs=1, **own)
        train(config)
        found.append((Path(config.train.out) / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    train(variant("other", word_dropout=0.2, epochs=1, **{**own, "seed": 9}))
    other = variant("other").train.out
    assert (Path(other) / "model.safetensors").read_bytes() != found[0]


def test_the_precision_is_one_of_the_settings(variant: Variant, monkeypatch: pytest.MonkeyPatch):
    step, seen = CaptionerModule.training_step, []

    def watched(module: CaptionerModule, batch: Any, index: int) -> Tensor:
        seen.append((module.trainer.precision, torch.is_autocast_enabled("cpu")))
        return step(module, batch, index)

    monkeypatch.setattr(CaptionerModule, "training_step", watched)
    for precision, features, expected in (
        ("32-true", {"avx512_bf16": True}, ("32-true", False)),
        ("auto", {"avx512_bf16": True}, ("bf16-mixed", True)),
        ("auto", {"avx2": True}, ("32-true", False)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, "get_capabilities", lambda f=features: f)
            train(variant(f"{precision} {expected}", epochs=1, precision=precision))
        assert set(seen) == {expected}
        seen.clear()
