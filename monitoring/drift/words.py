"""Words that came into captions, and words that went."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
#: Words are reported only if chance would report one in so many comparisons.
COMPARISONS = 100
#: Fewest captions with a word, before and now together: rarer ones say nothing.
FEWEST = 10
#: Least change of the share of captions that have a word.
LEAST_CHANGE = 0.02


@dataclasses.dataclass(frozen=True)
class WordChange:
    """A word whose share of captions changed.

    Attributes:
        word: The word.
        before: Share of the captions that had it.
        now: Share of the captions that have it.
    """

    word: str
    before: float
    now: float


def words_of(caption: str) -> set[str]:
    """The words of a caption, each once, in lower case."""
    return set(_WORD.findall(caption.lower()))


def word_count(caption: str) -> int:
    """How many words a caption has."""
    return len(_WORD.findall(caption))


def word_changes(
    before: Mapping[str, int], captions_before: int, now: Mapping[str, int], captions_now: int
) -> list[WordChange]:
    """Words whose share changed more than chance and `LEAST_CHANGE` explain, the surest first.

    A test of two proportions for each word, corrected for their number (Bonferroni).

    Args:
        before: Word -> captions that had it.
        captions_before: Number of all captions.
        now: The same of the captions now.
        captions_now: The same.
    """
    words = {w for w in before.keys() | now.keys() if before.get(w, 0) + now.get(w, 0) >= FEWEST}
    found: list[tuple[float, WordChange]] = []
    for word in words:
        own = WordChange(
            word, before.get(word, 0) / captions_before, now.get(word, 0) / captions_now
        )
        share = (before.get(word, 0) + now.get(word, 0)) / (captions_before + captions_now)
        error = math.sqrt(share * (1 - share) * (1 / captions_before + 1 / captions_now))
        z = abs(own.now - own.before) / error if error else 0.0
        chance = math.erfc(z / math.sqrt(2))  # of a difference at least as large, by chance
        if chance < 1 / (COMPARISONS * len(words)) and abs(own.now - own.before) >= LEAST_CHANGE:
            found.append((z, own))
    return [own for _, own in sorted(found, key=lambda each: (-each[0], each[1].word))]
