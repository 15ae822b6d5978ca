"""The words that people correct most often: which ones they take out, and what they write."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

from training.evaluation.scores.words import words

#: Most different corrections that are counted; rare ones are forgotten beyond that.
MOST = 200_000


class CorrectedWords:
    """Counts what corrections change."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, caption: str, correction: str) -> None:
        """Compare a caption with its correction."""
        self._counts.update(changes(caption, correction))
        if len(self._counts) > MOST:
            self._counts = Counter(dict(self._counts.most_common(MOST // 2)))

    def most_common(self, count: int) -> list[tuple[str, str, int]]:
        """What was taken out, what was written instead, and how often; either may be empty."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [(before, after, times) for (before, after), times in ordered[:count]]


def changes(caption: str, correction: str) -> Iterator[tuple[str, str]]:
    """The words of a caption that a correction replaces, and by which; each run of words is one."""
    before, after = words(caption), words(correction)
    compared = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, j, k, m in compared.get_opcodes():
        if kind == "equal":
            continue
        if kind == "replace" and j - i == m - k:  # word by word: "a dog" -> "the cat" is two
            yield from zip(before[i:j], after[k:m], strict=True)
        else:
            yield " ".join(before[i:j]), " ".join(after[k:m])
