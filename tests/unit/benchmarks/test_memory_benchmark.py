"""The memory benchmark trains what training trains, and says what it took at every stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.measured_training import STAGES, train
from benchmarks.memory import make_data


def test_every_stage_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert make_data(tmp_path, 1000) > 10_000
    threads = torch.get_num_threads()
    try:
        train(tmp_path, batches=1)
    finally:
        torch.set_num_threads(threads)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    assert [line["stage"] for line in lines] == list(STAGES)
    assert all(line["anonymous_mb"] > 0 for line in lines)
