"""The profiles: what runs in them, their tables, and a trace that opens."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import profile
from model.refusal import Refusal
from training.config import Config


def test_each_profile_names_its_parts_and_dearest_operators(
    tiny_run: Config, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    places = {name: str(tmp_path / name) for name in ("out", "work", "curves")}
    config = dataclasses.replace(
        tiny_run,
        train=dataclasses.replace(tiny_run.train, **places),
        features=dataclasses.replace(tiny_run.features, out=str(tmp_path / "features")),
    )
    monkeypatch.setattr(profile, "settings", lambda _: config)
    monkeypatch.setattr(profile, "prepare", lambda _: None)
    monkeypatch.setattr(profile, "SHIPPED", tiny_checkpoint)
    monkeypatch.setattr(profile, "served_precision", lambda: "fp32")
    monkeypatch.setattr(profile, "STEPS", 3)
    out = tmp_path / "profile"
    monkeypatch.setattr(sys, "argv", ["benchmarks.profile", "--out", str(out)])
    profile.main()
    parts = {
        "training": {"forward and loss", "backward", "make a batch"},
        "features": {"decode a picture", "resize and normalise", "encode a batch"},
        "serving": {"decode", "encode", "search"},
    }
    printed = capsys.readouterr().out
    for name, expected in parts.items():
        text = (out / f"{name}.txt").read_text()
        assert text in printed
        assert expected <= set(re.findall(r"^\| ([\w ]+) \|", text, re.MULTILINE))
        operators = re.findall(r"^\| `([^`]+)` \| (\d+) \| ([\d.]+) s", text, re.MULTILINE)
        assert len(operators) == profile.DEAREST
        assert any(operator.startswith("aten::") for operator, _, _ in operators)
        times = [float(own) for _, _, own in operators]
        assert times == sorted(times, reverse=True)
        with gzip.open(out / f"{name}.trace.json.gz") as file:
            calls = {event.get("name") for event in json.load(file)["traceEvents"]}
        assert expected | {operators[0][0]} <= calls


def test_a_profile_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["benchmarks.profile", "export", "--out", str(tmp_path)])
    with pytest.raises(Refusal, match="there is no profile 'export'; name one of training, feat"):
        profile.main()
