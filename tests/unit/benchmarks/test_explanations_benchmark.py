"""The benchmark of explanations: a cell is right where its centre is in a box of the thing."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import explanations, heldout
from benchmarks.explanations import METHODS, Explained, Pointing, hit_cells, words_of
from model.artifact import GeneratedCaption
from model.caption_words import CaptionWord
from model.explanation import CaptionExplanation
from training.scenes.language.statements import stated
from training.scenes.world.scene import Group, Scene

TEXT = "a red boat left of two white hot air balloons"
RED = Group("boat", "red", "medium", ((0.0, 0.5, 0.25, 0.5),), (False,))
BOXES = ((0.5, 0.0, 0.1, 0.2), (0.8, 0.0, 0.2, 0.2))
WHITE = Group("balloon", "white", "small", BOXES, (False, False))
SCENE = Scene(1, "sea", "day", "clear", 0.5, (RED, WHITE), "left of")


def explained(text: str, at: dict[str, tuple[int, int]], shown: float = 1.0) -> Explained:
    """A caption whose words have one cell of value each, by word: row and column of 4 x 4."""
    words, begin = [], 0
    for number, word in enumerate(text.split()):
        words.append(CaptionWord(word, begin, begin + len(word), (number,)))
        begin += len(word) + 1
    cells = torch.zeros(len(words), 4, 4)
    for number, word in enumerate(words):
        if word.text in at:
            cells[number][at[word.text]] = 1.0
    numbers = torch.zeros(len(words))
    found = CaptionExplanation(tuple(words), numbers, numbers, shown * cells, cells, 1)
    caption = GeneratedCaption(text, -1.0, len(words))
    return Explained(SCENE, Image.new("RGB", (8, 8)), caption, found, 0.1)


def test_cells_in_a_box():
    hits = hit_cells(4, ((0.0, 0.5, 0.25, 0.5), (0.8, 0.0, 0.2, 0.2)))
    assert hits.nonzero().tolist() == [[0, 3], [2, 0], [3, 0]]


def test_the_words_of_a_claim_are_taken_together():
    found = explained(TEXT, {})
    claims = {claim.value: words_of(found, claim) for claim in stated(TEXT).claims}
    assert claims["boat",] == [2]
    assert claims["white", "balloon"] == [6]
    assert claims["balloon",] == [7, 8, 9]


def test_what_is_in_the_right_place_is_counted():
    places = {"red": (3, 0), "boat": (2, 0), "white": (0, 0), "air": (0, 3), "balloons": (2, 2)}
    pointing = Pointing()
    pointing.add(explained(TEXT, {**places, "hot": (0, 3)}))
    figures = pointing.figures()
    assert figures["thing"] == {
        "claims": 2,
        "hits": dict.fromkeys(METHODS, 1.0),
        "by_chance": pytest.approx((2 + 1) / 16 / 2),
    }
    assert figures["colour"]["hits"] == dict.fromkeys(METHODS, 0.5)


def test_what_a_caption_makes_up_is_not_counted():
    pointing = Pointing()
    pointing.add(explained("a green boat beside a red tree", {"boat": (2, 0)}))
    figures = pointing.figures()
    assert (figures["thing"]["claims"], figures["colour"]["claims"]) == (1, 0)


def test_the_command_writes_figures_and_a_picture(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run_here(module: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [module, *words])
        importlib.import_module(module).main()

    monkeypatch.setattr(explanations, "run_command", run_here)
    words = ["--seed", "5", "--count", "2", "--grid", "2", "--checkpoint", str(tiny_checkpoint)]
    picture = tmp_path / "examples.png"
    run_here("benchmarks.explanations", *words, "--out", str(tmp_path), "--picture", str(picture))
    results = json.loads((tmp_path / "explanations.json").read_text())
    assert (results["seed"], results["count"], results["grid"]) == (5, 2, 2)
    assert list(results["splits"]) == ["test", "compositional"]
    assert Image.open(picture).size[1] > 100
    shown = explanations.explanations_section(results)
    assert "| cells drawn by chance |" in shown


def test_nothing_was_chosen_by_the_seed():
    config = (explanations.ROOT / "training" / "conf" / "config.yaml").read_text()
    assert str(explanations.SEED) not in config
    assert explanations.SEED not in (heldout.SEED, 777)
