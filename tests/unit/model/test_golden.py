"""Golden cases: what the original ClipCap says, written down once, and said again by ours.

`CLIPCAP_GOLDEN=DIR` has the cases of another folder checked too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import golden
from benchmarks.original import Original
from tests import ROOT

OWN = ROOT / "tests" / "golden"
FOLDERS = [OWN, *map(Path, filter(None, [os.environ.get("CLIPCAP_GOLDEN")]))]
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*_weights.pt"))]


@pytest.mark.parametrize("weights", FILES, ids=lambda file: file.stem)
@torch.inference_mode()
def test_the_original_algorithm_gives_the_answers_written_down(weights: Path):
    name = weights.name.removesuffix("_weights.pt")
    cases = json.loads((weights.parent / f"{name}_cases.json").read_text())
    tensors = load_file(weights.parent / f"{name}_cases.safetensors")
    original = Original.read(weights, cases["clip_normalize"], cases["stop_token_id"])
    prefixes = [original.prefix(feature) for feature in tensors["features"]]
    logits = torch.stack([original.logits(prefix, [[]])[0] for prefix in prefixes])
    torch.testing.assert_close(logits, tensors["first_step_logits"], atol=1e-4, rtol=0)
    limit, beams = cases["max_new_tokens"], cases["beam_size"]
    assert [original.greedy(prefix, limit) for prefix in prefixes] == cases["greedy"]
    for i in range(0, len(prefixes), 3):  # a third by beam, which is slow
        tokens, mean = original.beam(prefixes[i], beams, limit)
        assert tokens == cases["beam"][i]
        assert mean == pytest.approx(cases["beam_mean_log_prob"][i], abs=1e-4)


def test_the_cases_ask_for_something():
    for file in OWN.glob("*_cases.json"):
        cases = json.loads(file.read_text())
        lengths = {len(tokens) for tokens in cases["greedy"]}
        ended = [tokens[-1] == cases["stop_token_id"] for tokens in cases["greedy"]]
        assert len(set(map(tuple, cases["greedy"]))) >= 20
        assert len(lengths) >= 4
        assert any(ended)
        assert not all(ended)
        assert cases["greedy"] != cases["beam"]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_ours_reproduces_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["benchmarks.golden", str(folder)])
    assert golden.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", "mlp:"], ["ok", "transformer:"]]


def test_another_answer_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for file in OWN.glob("mlp_*"):
        shutil.copy(file, tmp_path)
    file = tmp_path / "mlp_cases.json"
    cases = json.loads(file.read_text())
    cases["greedy"][5][0] ^= 1
    file.write_text(json.dumps(cases))
    monkeypatch.setattr(sys, "argv", ["benchmarks.golden", str(tmp_path)])
    assert golden.main() == 1
    assert "greedy 23/24 equal" in capsys.readouterr().out
