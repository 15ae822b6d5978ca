"""How right a caption is, from 0 to 1: what a quality head learns to expect.

Where a data set holds the truth about its pictures, a caption is right if nothing that it states is
false. Where it has references only, a caption is as right as its CIDEr-D is high, in shares of what
a person's caption gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple, Protocol

from training.data.dataset import CaptionDataset
from training.evaluation.scores.checks import Checks
from training.evaluation.scores.cider_reward import CiderReward
from training.evaluation.scores.right import HUMAN_CIDER


class Target(NamedTuple):
    """What is known of one caption.

    Attributes:
        right: How right it is, from 0 to 1.
        wrong: First and past-last character of each false statement; None where it is not known
            which words are wrong.
    """

    right: float
    wrong: Sequence[tuple[int, int]] | None


class Targets(Protocol):
    """A way to say how right captions are."""

    kind: str

    def __call__(self, image_id: int, caption: str, ended: bool) -> Target:
        """The target of one caption; `ended` where it was not cut at its longest."""


class ByTruth:
    """Targets by the checks of a data set."""

    kind = "truth"

    def __init__(self, checks: Checks) -> None:
        self._split = checks.split()

    def __call__(self, image_id: int, caption: str, ended: bool) -> Target:
        """See `Targets`."""
        wrong = [statement.span for statement in self._split.add(image_id, caption)]
        return Target(float(not wrong), wrong)


class ByReferences:
    """Targets by CIDEr-D against the references.

    Args:
        dataset: Has the references.
        image_ids: Its images whose captions will be judged.
    """

    kind = "references"

    def __init__(self, dataset: CaptionDataset, image_ids: Sequence[int]) -> None:
        self._references = {i: list(dataset.captions[i]) for i in image_ids}
        self._cider = CiderReward(self._references.values())
        people = [
            self._cider([(own[0], True)], [own[1:]])[0]
            for own in self._references.values()
            if len(own) > 1
        ]
        self._human = float(fmean(people)) if people else HUMAN_CIDER

    def __call__(self, image_id: int, caption: str, ended: bool) -> Target:
        """See `Targets`."""
        score = float(self._cider([(caption, ended)], [self._references[image_id]])[0])
        return Target(min(1.0, score / self._human) if self._human > 0 else 0.0, None)
