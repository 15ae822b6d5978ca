"""The decoding benchmark measures every system and compares tokens."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import captioners, decode
from benchmarks.captioners import CASES
from benchmarks.pages import decode_ratios, decode_tables, speed_figures
from model.layers.precision import available
from model.refusal import Refusal


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny captioner and its artifacts, exported once for all tests here."""
    folder = tmp_path_factory.mktemp("captioner")
    captioners.write_captioner(folder, available(), tiny=True)
    return folder


def test_a_tiny_captioner_is_measured_and_shown(written: Path):
    results = decode.measure(written, ("ours", "hf", "original"), 1, True)
    assert results["same_tokens"] == {"batch 1": True, "batch 8": True}
    assert {entry["task"] for entry in results["measured"]} == {"caption", "encode", "products"}
    assert all(entry["seconds"] > 0 for entry in results["measured"])
    shown = decode_tables(results)
    assert "| original fp32 | 1 | 5 beams |" in shown
    limited = shown.partition("### The machine's limit")[2].splitlines()[4:]
    assert [line.split()[1] for line in limited] == [*available()]
    head = {"processor": "", "command": "", "threads": 1, "instructions": [], "torch": ""}
    head |= {"transformers": "", "date": ""}
    page = speed_figures({"here": {"decode": {**head, **results}}})
    assert "| 8 images, beside the original |" in page
    assert "| 8 images, share of the machine's limit |" in page
    assert "ours fp32 writes the same tokens as Hugging Face fp32." in page


def test_the_limit_is_the_encoder_and_the_products_of_all_steps_but_one():
    tasks = {
        ("caption", "ours fp32", 8, 5): 2.0,
        ("caption", "original fp32", 1, 5): 1.0,
        ("caption", "BLIP-base fp32", 1, 5): 0.5,
        ("caption", "BLIP-base fp32", 4, 5): 4.0,
        ("caption", "ours fp32", 1, 5): 0.25,
        ("encode", "ours fp32", 8, 0): 0.05,
        ("products", "products fp32", 40, 0): 0.05,
    }
    names = ("task", "system", "batch", "beams")
    measured = [
        {**dict(zip(names, key, strict=True)), "seconds": value} for key, value in tasks.items()
    ]
    results = {"tokens": 20, "measured": measured, "same_tokens": {}}
    # 19 steps of 50 ms and an encoder of 50 ms: 8 images a second, of which 4 are reached.
    assert "| fp32 | 50 ms | 50.0 ms | 8.0 images/s | 4.0 images/s | 50% |" in decode_tables(
        results
    )
    ratios = decode_ratios({"here": {"decode": results}}).splitlines()
    assert "| 8 images, share of the machine's limit | 0.5 |" in ratios
    assert "| 8 images, beside the original | 4 |" in ratios
    # BLIP is faster with one image (2 a second) than with four (1 a second).
    assert "| 8 images, beside BLIP-base | 2 |" in ratios
    assert "| 1 image, beside BLIP-base | 2 |" in ratios
    assert "| 8 images, beside Hugging Face fp32 |  |" in ratios


def test_every_caption_has_the_tokens_asked_for(written: Path):
    with torch.inference_mode():
        for makers in captioners.captioners(written, tuple(CASES), tiny=True).values():
            for name, make in makers.items():
                system = make()
                features = system.encode(captioners.pixels(2, system.side))
                captions = system.caption(features, 3, 7)
                assert (name, [len(caption) for caption in captions]) == (name, [7, 7])


def test_the_command_writes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--quick", "--rounds", "1", "--only", "original", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.decode", *words])
    decode.main()
    results = json.loads((tmp_path / "decode.json").read_text())
    assert results["command"] == f"python -m benchmarks.decode {' '.join(words)}"
    assert {entry["system"] for entry in results["measured"]} == {"original fp32"}
    assert {(entry["batch"], entry["beams"]) for entry in results["measured"]} == {(1, 1), (1, 5)}


@pytest.mark.parametrize(
    ("words", "reason"), [(["--only", "hf"], "another folder"), (["--rounds", "0"], "1 or more")]
)
def test_a_run_that_would_spoil_the_kept_results_is_refused(
    words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["benchmarks.decode", *words])
    with pytest.raises(Refusal, match=reason):
        decode.main()


def test_a_process_says_what_it_took_and_gave(tmp_path: Path):
    with decode.OwnProcess(partial(Path.mkdir, tmp_path / "made")) as own:
        seconds, result = own.timed(partial(Path.is_dir, tmp_path / "made"))
    assert result is True
    assert 0 < seconds < 1
