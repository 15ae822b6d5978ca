"""Checks that a data set brings with it: which statements of a caption are false of its picture.

Scores such as CIDEr compare words with words. Where a data set holds the truth about its pictures,
the statements of captions can be checked against it. Such checks add figures to an evaluation,
marks to its page, and sentences on limits to the model card. A data set without them, such as COCO
or a folder of pictures, is evaluated by its scores alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

#: A file in the folder of a data set -> the module with `load_checks(folder)` for such data sets.
CHECKS = {"truth.json": "training.scenes.checks"}


class FalseStatement(Protocol):
    """A statement of a caption that is false of its picture."""

    @property
    def kind(self) -> str:
        """What it is about, such as `colour`."""

    @property
    def span(self) -> tuple[int, int]:
        """First and past-last character of its words in the caption."""


class SplitChecks(Protocol):
    """The checked captions of one split."""

    def add(self, image_id: int, caption: str) -> Sequence[FalseStatement]:
        """Check one caption; returns its false statements."""

    def contrasts(self, captions: Sequence[str]) -> Iterable[tuple[str, str, str]]:
        """True captions of a picture, each with a false one that differs in little, and its kind.

        The captioner should find the true one more likely
        (`training.evaluation.scores.forced_choice`).
        """

    def choose(self, kind: str, right: bool) -> None:
        """Count whether the captioner chose the true caption of a contrast of this kind."""

    def figures(self) -> dict[str, float]:
        """The figures over all captions that were added, each from 0 to 1."""


class Checks(Protocol):
    """What a data set brings to its evaluation."""

    @property
    def titles(self) -> Mapping[str, str]:
        """Title of each figure on page, card and in the table, in their order."""

    @property
    def bars(self) -> Mapping[str, str]:
        """Figures in the chart -> the label of each."""

    @property
    def bars_title(self) -> str:
        """Title of the chart of `bars`, which are drawn in per cent."""

    def split(self) -> SplitChecks:
        """Checks of a split, with no captions yet."""

    def limits(self, split: str, figures: Mapping[str, float]) -> list[str]:
        """Sentences for the model card on what the figures of a split say against the captioner."""


def find_checks(folder: Path) -> Checks | None:
    """The checks of the data set in a folder, or None if it has none."""
    for name, module in CHECKS.items():
        if (folder / name).exists():
            return cast(Checks, import_module(module).load_checks(folder))
    return None
