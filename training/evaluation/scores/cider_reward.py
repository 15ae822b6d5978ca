"""CIDEr-D of single captions against references, with the word statistics of one fixed set.

`training.evaluation.scores.scoring.cider` takes the document frequencies from the references that
it scores. A reward must not: the same caption would be worth more in one batch than in another. So
they are counted once, in the references of the training split (Rennie et al.: "Self-critical
Sequence Training for Image Captioning", arXiv 1612.00563, section 5).

The end of a caption is a word of its own in all captions. Without it a captioner that is trained on
the reward learns to stop in the middle of a phrase, because a bad end costs nothing (arXiv
2003.09971, section 3).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from training.evaluation.scores.words import words

#: The word that stands for the end of a caption; no caption has it, since it has a blank.
END = " "
#: Longest n-gram.
_ORDER = 4
#: Width of the penalty on captions that are longer or shorter than a reference, in words.
_SIGMA = 6.0


class _Vector(NamedTuple):
    """A caption: weight of each n-gram, by the hash of its words, their norms [4], and its length.

    The length is the number of its pairs of words, as in the reference implementation.
    """

    weights: dict[int, tuple[int, float]]
    norms: np.ndarray
    length: int


class CiderReward:
    """Scores captions by CIDEr-D (arXiv 1411.5726, section 5).

    It holds 16 bytes for each different n-gram of the references, 60 MB for COCO's training
    captions; counting them takes twice that.

    Args:
        references: The references of each image whose words are counted; of the training split,
            for a reward.
        end: Whether the end of a caption is a word, as a reward needs it. Without it the scores are
            those of `scoring.cider`, where both count the same references.
    """

    def __init__(self, references: Iterable[Sequence[str]], *, end: bool = True) -> None:
        self._end = [END] if end else []
        hashes, images = array("q"), 0
        for own in references:
            images += 1
            hashes.extend({gram for text in own for gram in _ngrams(words(text) + self._end)})
        found = np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64)
        self._known, counts = np.unique(found, return_counts=True)
        self._log_frequency = np.log(counts)
        self._log_images = float(np.log(images)) if images else 0.0

    def __call__(
        self, captions: Sequence[tuple[str, bool]], references: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """The reward of each caption, float64 [N], from 0 to 10.

        Args:
            captions: Text of each of N captions, and whether it came to its end.
            references: The references of each caption's image; those of the same image may be the
                same object, which is then read once.
        """
        seen: dict[int, list[_Vector]] = {}
        rewards = np.zeros(len(captions))
        for row, ((text, ended), own) in enumerate(zip(captions, references, strict=True)):
            if id(own) not in seen:
                seen[id(own)] = [self._vector(words(reference) + self._end) for reference in own]
            caption = self._vector(words(text) + self._end * ended)
            similarity = [_similarity(caption, reference) for reference in seen[id(own)]]
            rewards[row] = 10 * sum(similarity) / len(similarity)
        return rewards

    def _vector(self, of: list[str]) -> _Vector:
        grams = _ngrams(of)
        keys = np.fromiter(grams, np.int64, len(grams))
        place = np.searchsorted(self._known, keys).clip(max=max(0, len(self._known) - 1))
        known = self._known[place] == keys if len(self._known) else np.zeros(len(keys), bool)
        rarity = np.full(len(keys), self._log_images)
        rarity[known] -= self._log_frequency[place[known]]
        orders = np.fromiter((order for order, _ in grams.values()), np.int64, len(grams))
        counts = np.fromiter((count for _, count in grams.values()), np.float64, len(grams))
        values = counts * rarity
        norms = np.sqrt(np.bincount(orders, values**2, _ORDER))
        weights = {
            key: (order, value)
            for key, (order, _), value in zip(grams, grams.values(), values.tolist(), strict=True)
        }
        return _Vector(weights, norms, max(0, len(of) - 1))


def _ngrams(of: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Hash of each n-gram -> its order, from 0, and how often it occurs.

    Two of millions of n-grams have the same hash of 64 bits with a chance of one in a million.
    """
    counts = Counter(
        (order, hash(tuple(of[start : start + order + 1])))
        for order in range(_ORDER)
        for start in range(len(of) - order)
    )
    return {key: (order, count) for (order, key), count in counts.items()}


def _similarity(caption: _Vector, reference: _Vector) -> float:
    """Mean over the orders of the clipped cosine similarity, with the penalty on the length."""
    common = [0.0] * _ORDER
    for key, (order, value) in caption.weights.items():
        other = reference.weights.get(key)
        if other is not None:
            common[order] += min(value, other[1]) * other[1]
    norms = caption.norms * reference.norms
    cosines = np.divide(common, norms, out=np.zeros(_ORDER), where=norms > 0)
    apart = caption.length - reference.length
    return float(cosines.mean() * np.exp(-(apart**2) / (2 * _SIGMA**2)))
