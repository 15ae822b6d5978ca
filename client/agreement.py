"""How much two captions of one picture agree."""

from __future__ import annotations

from collections import Counter


def word_f1(one: str, other: str) -> float:
    """The overlap of the words of two captions: the harmonic mean of precision and recall.

    A word counts as often as it stands in both; order and case do not matter.

    Returns:
        From 0, no word in common, to 1, the same words; 1 for two empty captions.
    """
    words, others = Counter(one.lower().split()), Counter(other.lower().split())
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else 1.0
