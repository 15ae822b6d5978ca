"""The benchmark of training steps measures each way on the same work."""

from __future__ import annotations

import pytest
import torch

from benchmarks import steps
from model.config import MapperConfig


def test_a_step_is_measured_in_every_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tiny = {"tiny": ((1, 16, 2, 40), MapperConfig("patch", 4), (2, 4, 5))}
    monkeypatch.setattr(steps, "MODELS", tiny)
    found = steps.measure("tiny", 1)
    assert set(found) == {"model", *steps.WAYS}
    assert all(found[way] > 0 for way in steps.WAYS)
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr("sys.argv", ["steps", "--steps", "1"])
    threads = torch.get_num_threads()
    steps.main()
    torch.set_num_threads(threads)
    assert "| tiny |" in capsys.readouterr().out
