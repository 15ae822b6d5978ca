"""A step computes on one device: no tensor is made that would stay on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from model.network.captioner import ClipCap
from model.network.search import Search
from tests.models import small_config
from training.captioner.batches import ALONE
from training.captioner.module import CaptionerModule
from training.captioner.objectives.pair_prior import PairPrior
from training.config import load_config

#: Operations that make a tensor on the processor unless they are told a device.
MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.rand, torch.randn,
          torch.randint, torch.randperm, torch.tensor, torch.linspace, torch.eye}  # fmt: skip


class Watch(TorchFunctionMode):
    """Remembers tensors with axes that were made without a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func in MAKERS and kwargs.get("device") is None and made.dim() > 0:
            self.found.append(f"{func.__name__} {tuple(made.shape)}")
        return made


@pytest.fixture
def module() -> CaptionerModule:
    settings = load_config().train
    settings.word_dropout, settings.label_smoothing = 0.1, 0.1
    prior = PairPrior(torch.randint(0, 40, (5000,)), [3, 4, 5], 40)
    captioner = ClipCap(small_config())
    images = torch.randn(3, 12)
    module = CaptionerModule(captioner, settings, lambda _: [images], lambda _: 0.0, prior)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.trainer = type("Trainer", (), {"world_size": 1, "global_rank": 0})()
    return module


def test_no_tensor_of_a_training_step_is_made_on_the_processor(module: CaptionerModule):
    batch = torch.randn(3, 12), torch.tensor([0, 0, 1, 2, 2]), torch.randint(0, 40, (5, 6))
    with Watch() as watch:
        module.training_step(batch, 0).backward()
        module.validation_step(batch, 0)
    assert watch.found == []


def test_no_tensor_of_captioning_is_made_on_the_processor(
    module: CaptionerModule, monkeypatch: pytest.MonkeyPatch
):
    watch, search = Watch(), Search.forward

    def watched(*given: Any) -> Any:  # the modules themselves are moved when they are made
        with watch:
            return search(*given)

    monkeypatch.setattr(Search, "forward", watched)
    with torch.no_grad():
        assert len(module._captions(ALONE)) == 3
    assert watch.found == []


def test_the_watch_sees_what_it_looks_for():
    with Watch() as watch:
        torch.zeros(3)
        torch.tensor([1, 2])
        torch.zeros(3, device=torch.device("cpu"))
    assert watch.found == ["zeros (3,)", "tensor (2,)"]
