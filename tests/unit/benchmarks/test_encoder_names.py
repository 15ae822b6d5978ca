"""Encoders and GPT-2s are tried as the page says: here of a size that takes seconds."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import encoder_names
from benchmarks.encoder_names import PAGE, TOKENS, tables, try_encoder, why_not
from benchmarks.encoder_shapes import NAMES, Named, save_encoder
from benchmarks.figures import shown_figures
from benchmarks.gpt2_names import GPT2S
from benchmarks.machine import RESULTS
from model.artifact import Artifact
from model.pretrained.encoder_folder import load_encoder
from model.refusal import Refusal

SMALL = {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 300}
KINDS = ("clip", "chinese_clip", "altclip", "metaclip_2", "siglip")


@pytest.mark.parametrize("kind", KINDS)
def test_the_folders_are_those_of_the_hub(kind: str, tmp_path: Path):
    save_encoder(Named("family", f"someone/{kind}", kind, (32, 1, 2, 64), 8, 32, 24), tmp_path)
    encoder, preprocessing = load_encoder(str(tmp_path))
    assert encoder.shape("pooled") == ((32,) if kind == "siglip" else (24,))
    assert (encoder.shape("patches"), preprocessing.size) == ((16, 32), 32)


@pytest.mark.parametrize("kind", ["siglip", "open_clip"])
def test_an_encoder_is_loaded_exported_and_asked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    named = Named("family", f"someone/{kind}", kind, (32, 1, 2, 64), 8, 32, 24)
    if kind == "open_clip":
        if importlib.util.find_spec("open_clip") is None:
            pytest.skip("the extra openclip is not installed")
        named = dataclasses.replace(named, sizes=(8, 1, 1, 2, 1), patch=0, image=64)
    monkeypatch.setattr(encoder_names, "GPT2", SMALL)
    row = try_encoder(named, tmp_path)
    assert row["feature"] == (32 if kind == "siglip" else 24)
    assert row["patches"] == (4 if kind == "open_clip" else 16)
    artifact = Artifact.load(tmp_path / "artifact")
    assert artifact.defaults.max_tokens == TOKENS
    assert row["export_seconds"] > 0
    shown = tables({NAMES[0].name: row})
    line = next(line for line in shown.splitlines() if f"`{NAMES[0].name}`" in line)
    assert line.endswith(f"| {row['export_seconds']:.0f} s | {row['caption_seconds']:.1f} s | "
                         f"{row['peak_gb']:.1f} GB |")  # fmt: skip


def test_what_takes_too_much_memory_is_not_tried_and_the_table_says_so():
    largest = next(named for named in NAMES if "bigG" in named.name)
    reason = why_not(largest, 6.0)
    assert reason == "not tried: takes about 32 GB"
    assert f"| `{largest.name}` | {reason} | 224 px |" in tables(
        {largest.name: {"not_tried": reason}}
    )
    assert why_not(NAMES[0], 6.0) is None
    assert why_not(GPT2S[-1], 6.0) == "not tried: takes about 20 GB"


def test_the_page_shows_the_kept_results():
    kept = json.loads((RESULTS / "encoders.json").read_text())["names"]
    assert shown_figures(PAGE, "benchmarks.encoder_names") == tables(kept)
    assert kept.keys() <= {named.name for named in (*NAMES, *GPT2S)}


def test_a_name_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks.encoder_names", "--only", "resnext"])
    with pytest.raises(Refusal, match="--only resnext is part of no name"):
        encoder_names.main()
