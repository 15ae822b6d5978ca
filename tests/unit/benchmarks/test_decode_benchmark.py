"""The decoding benchmark measures everyone, compares tokens, and fills the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import decode
from benchmarks.contestants import GROUPS, checkpoint, contestants, write_contestants
from benchmarks.table import put_between_marks
from benchmarks.tables import BEGIN, END, tables
from model.layers.precision import available
from model.refusal import Refusal


def test_a_tiny_captioner_is_measured_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--quick", "--rounds", "1", "--only", "ours", "hf", "original"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.decode", *words, "--out", str(tmp_path)])
    decode.main()
    results = json.loads((tmp_path / "decode.json").read_text())
    assert all(results["same_tokens"].values())
    assert all(off < 0.02 for off in results["nats_off"].values())
    assert {entry["task"] for entry in results["measured"]} == {"caption", "encode", "step"}
    assert (tmp_path / "decode.png").stat().st_size > 10_000
    page = tmp_path / "page.md"
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb")
    put_between_marks(page, BEGIN, tables({"here": {"decode": results}}), END)
    assert "old" not in page.read_text()
    assert "| original fp32 | 1 | 5 beams |" in page.read_text()
    page.write_text("no marks")
    with pytest.raises(Refusal, match="lacks the marks"):
        put_between_marks(page, BEGIN, "", END)


def test_every_caption_has_the_tokens_asked_for(tmp_path: Path):
    write_contestants(checkpoint(quick=True), tmp_path, available())
    with torch.inference_mode():
        for makers in contestants(tmp_path, GROUPS, quick=True).values():
            for name, make in makers.items():
                one = make()
                captions = one(decode.pictures(2, one.side), 3, 7)
                assert (one.name, [len(caption) for caption in captions]) == (name, [7, 7])
