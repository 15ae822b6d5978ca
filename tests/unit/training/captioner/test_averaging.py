"""The moving average of the weights: what it is, and that it is validated and saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from model.checkpoint import Checkpoint
from tests.models import save_gpt2
from tests.training_runs import Variant, weights
from training.captioner.averaging import WeightAverage
from training.captioner.module import CaptionerModule
from training.captioner.train import train
from training.config import Config

NAME = "captioner.mapper.linear.weight"
Steps = list[tuple[int, Tensor]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The mapper's weights after every optimiser step of the trainings of a test."""
    seen: Steps = []
    own = WeightAverage.on_train_batch_end

    def watched(
        self: WeightAverage, trainer: pl.Trainer, module: CaptionerModule, *rest: object
    ) -> None:
        if trainer.global_step > (seen[-1][0] if seen else 0):
            seen.append((trainer.global_step, module.get_parameter(NAME).detach().clone()))
        own(self, trainer, module, *rest)

    monkeypatch.setattr(WeightAverage, "on_train_batch_end", watched)
    return seen


def averaged(steps: Steps, begin: Tensor, decay: float) -> Tensor:
    """The average as its definition has it."""
    average = begin.double()
    for number, weight in steps:
        own = min(decay, (1 + number) / (10 + number))
        average = own * average + (1 - own) * weight.double()
    return average.float()


@pytest.mark.usefixtures("no_score")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_what_is_saved_is_the_average_of_all_steps(
    variant: Variant, tiny_run: Config, steps: Steps, accumulated: int
):
    begun: list[Tensor] = []
    start = CaptionerModule.on_train_start
    trainer = {**tiny_run.train.trainer, "accumulate_grad_batches": accumulated}
    config = variant(ema=0.6, epochs=1, trainer=trainer)
    with pytest.MonkeyPatch.context() as patch:

        def remembered(module: CaptionerModule) -> None:
            begun.append(module.get_parameter(NAME).detach().clone())
            start(module)

        patch.setattr(CaptionerModule, "on_train_start", remembered)
        train(config)
    expected = averaged(steps, begun[0], 0.6)
    assert [number for number, _ in steps] == list(range(1, 6 if accumulated == 1 else 4))
    saved = weights(config.train.out)["mapper.linear.weight"]
    assert torch.allclose(saved, expected, atol=1e-6)
    assert not torch.allclose(saved, steps[-1][1], atol=1e-4)
    last = torch.load(Path(config.train.work) / "last.ckpt", weights_only=True)
    assert torch.equal(last["state_dict"][NAME], saved)
    assert torch.equal(last["trained_weights"][NAME], steps[-1][1])


@pytest.mark.usefixtures("no_score")
def test_the_average_is_what_is_validated_and_captions(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, list[Tensor]] = {"validation_step": [], "_captions": []}
    for name, weights_then in seen.items():
        own = getattr(CaptionerModule, name)

        def watched(
            module: CaptionerModule, *given: Any, own: Any = own, then: Any = weights_then
        ) -> Any:
            then.append(module.get_parameter(NAME).detach().clone())
            return own(module, *given)

        monkeypatch.setattr(CaptionerModule, name, watched)
    config = variant(ema=0.9, epochs=1)
    train(config)
    average = weights(config.train.out)["mapper.linear.weight"]
    last = torch.load(Path(config.train.work) / "last.ckpt", weights_only=True)
    assert not torch.equal(last["trained_weights"][NAME], average)
    for weights_then in seen.values():
        assert weights_then
        assert all(torch.equal(each, average) for each in weights_then)


@pytest.mark.usefixtures("no_score")
@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_only_what_is_trained_is_averaged(
    variant: Variant, tiny_run: Config, tmp_path: Path, tuning: str
):
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, base=str(save_gpt2(tmp_path / "gpt2")))
    config = variant(gpt2=gpt2, tuning=tuning, ema=0.5, epochs=1)
    train(config)
    last = torch.load(Path(config.train.work) / "last.ckpt", weights_only=True)
    trained = set(last["trained_weights"])
    assert any("mapper" in name for name in trained)
    inside = {name for name in trained if "gpt2" in name}
    assert all("lora_" in name for name in inside)
    assert bool(inside) == (tuning == "lora")
    assert Checkpoint.load(config.train.out).captioner.gpt2.config.n_embd == 32


@pytest.mark.usefixtures("no_score")
def test_training_goes_on_with_the_trained_weights(variant: Variant, steps: Steps):
    train(variant("average", ema=0.9))
    with_average = [weight for _, weight in steps]
    plain = variant("plain")
    train(plain)
    last = torch.load(Path(plain.train.work) / "last.ckpt", weights_only=True)
    assert torch.equal(last["state_dict"][NAME], with_average[-1])
