"""The prior of an attribute and the word behind it, by its numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from model.network.captioner import IGNORED
from training.captioner.objectives.pair_prior import LIMIT, PairPrior, attribute_tokens

#: Words: end, "a", three colours, three things. No third colour of the third thing.
END, A = 0, 1
COLOURS, THINGS = (2, 3, 4), (5, 6, 7)
HELD = (4, 7)
SEEN = [pair for pair in itertools.product(COLOURS, THINGS) if pair != HELD]


def prior_of(repeats: int = 20) -> PairPrior:
    captions = [[A, colour, thing, END] for colour, thing in SEEN] * repeats
    return PairPrior(torch.tensor(captions).flatten(), COLOURS, 8)


def test_adds_the_information_of_the_pair_on_both_of_its_sides() -> None:
    labels = torch.tensor([[A, 4, 5, END], [A, 6, END, IGNORED]])
    added = prior_of()(torch.zeros(7, 8), labels)

    at_colour, at_thing = added[1], added[2]
    seen_here = math.log(20 * 160 / (40 * 60))  # "4 5": 20 of 160 pairs; 40 of colour 4, 60 of 5
    assert torch.allclose(at_thing[list(THINGS)], torch.tensor([seen_here, seen_here, -LIMIT]))
    # Before thing 5: colours 2 and 3 stand 20 times each of 60, as colour 4 does of its 40.
    usual = math.log(20 * 160 / (60 * 60))
    assert torch.allclose(at_colour[list(COLOURS)], torch.tensor([usual, usual, seen_here]))
    untouched = [at_colour[[END, A, *THINGS]], at_thing[[END, A, *COLOURS]], added[[0, 3, 4, 5, 6]]]
    assert all(not part.any() for part in untouched)


def test_captions_counted_in_parts_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prior_of().table
    monkeypatch.setattr(
        "training.captioner.objectives.pair_prior.TOKENS_COUNTED_TOGETHER", 7
    )  # parts end inside pairs, too
    assert torch.equal(prior_of().table, whole)


def test_words_that_chance_seldom_joins_say_nothing() -> None:
    assert not prior_of(repeats=1).table.any()


def test_a_word_that_is_several_tokens_is_left_out_and_named(capsys: pytest.CaptureFixture[str]):
    pieces = {"red": [2], " red": [2], "teal": [3, 4], " teal": [3, 4]}
    assert attribute_tokens(["red"], pieces.__getitem__, "x") == [2]
    assert not capsys.readouterr().err
    assert attribute_tokens(["red", "teal"], pieces.__getitem__, "x") == [2]
    assert "note: x ignores teal: several tokens" in capsys.readouterr().err


def test_without_attributes_nothing_is_added() -> None:
    logits = torch.randn(2, 8)
    prior = PairPrior(torch.tensor([A, 2, 5, END]), [], 8)
    assert torch.equal(prior(logits, torch.tensor([[A, 2]])), logits)
