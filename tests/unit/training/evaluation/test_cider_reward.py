"""CIDEr-D of single captions is that of the reference implementation, with fixed statistics."""

import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from training.evaluation.scores.cider_reward import CiderReward

WORDS = ["a", "the", "two", "red", "boat", "boats", "dog", "sea", "on", "near", "sailing", "sky"]


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))


def test_scores_are_those_of_the_reference_implementation():
    rng = random.Random(3)
    references = [[sentence(rng) for _ in range(rng.randint(1, 5))] for _ in range(40)]
    captions = [sentence(rng) for _ in references]
    theirs = CiderScorer(n=4, sigma=6.0)
    for caption, own in zip(captions, references, strict=True):
        # Our word for the end is one that no caption has; theirs is written out.
        theirs += (f"{caption} END", [f"{text} END" for text in own])
    _, expected = theirs.compute_score()
    rewards = CiderReward(references)([(caption, True) for caption in captions], references)
    assert rewards == pytest.approx(expected, abs=1e-9)


def test_a_score_does_not_depend_on_what_else_is_scored():
    rng = random.Random(4)
    references = [[sentence(rng)] for _ in range(10)]
    reward = CiderReward(references)
    several = reward([("two red boats", True), ("a dog", True)], references[:2])
    assert reward([("a dog", True)], references[1:2]) == pytest.approx(several[1:])


def test_a_caption_without_its_end_is_worth_less():
    references = [["two red boats on the sea"], ["a dog"], ["the sky"]]
    ended, cut = CiderReward(references)(
        [("two red boats on the sea", True), ("two red boats on the sea", False)],
        [references[0], references[0]],
    )
    assert ended == pytest.approx(10.0)
    assert cut < ended


def test_captions_without_words_are_worth_nothing():
    reward = CiderReward([["a dog"], ["a cat"]])
    assert np.array_equal(reward([("", False)], [["a dog"]]), [0.0])
    assert np.isfinite(reward([("!", True)], [[""]])).all()
