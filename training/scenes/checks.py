"""Checks of captions against the truth of drawn scenes (`training.evaluation.scores.checks`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from training.scenes.language.accuracy import SceneAccuracy
from training.scenes.language.statements import KINDS, Claim
from training.scenes.language.turned import turned
from training.scenes.world.scene import Scene


class SceneChecks:
    """The truth of the scenes of a data set.

    Args:
        truth: Image id -> what is in the picture.
    """

    titles: Mapping[str, str] = {
        "precision": "scene precision",
        "recall": "scene recall",
        "hallucination_rate": "hallucination rate",
        "faultless": "faultless captions",
        "relation_precision": "relations that are true",
        "relation_recall": "relations that are stated",
        "size_recall": "sizes that are stated",
        "choice": "true relation preferred",
        "choice_left_right": "true side preferred (left, right)",
        "choice_front_behind": "true depth preferred (in front, behind)",
        "choice_above_below": "true height preferred (above, below)",
        "moulds": "different sentence moulds",
    }
    bars: Mapping[str, str] = {f"{kind}_precision": kind for kind in KINDS}
    bars_title = "True of what captions state, per cent"

    def __init__(self, truth: Mapping[int, Scene]) -> None:
        self._truth = truth

    def split(self) -> SceneSplit:
        """Checks of a split, with no captions yet."""
        return SceneSplit(self._truth)

    def limits(self, split: str, figures: Mapping[str, float]) -> list[str]:
        """How many of the statements are false, and of which kind most; empty without figures."""
        if "precision" not in figures:
            return []
        stated = {kind: figures[name] for name, kind in self.bars.items() if name in figures}
        text = f"{split}: {1 - figures['precision']:.1%} of what its captions state is false"
        if stated:
            worst = min(stated, key=lambda kind: stated[kind])
            text += f", most often the {worst} ({1 - stated[worst]:.1%} of those stated)"
        return [
            f"{text}; {1 - figures['faultless']:.1%} of the captions have something false in them."
        ]


class SceneSplit:
    """The checked captions of one split."""

    def __init__(self, truth: Mapping[int, Scene]) -> None:
        self._truth = truth
        self._accuracy = SceneAccuracy()

    def add(self, image_id: int, caption: str) -> list[Claim]:
        """Check one caption; returns its false claims."""
        return self._accuracy.add(caption, self._truth[image_id])

    def contrasts(self, captions: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Each caption with its relation turned round, and the kind of relation.

        Captions without a relation that can be turned round are left out.
        """
        for caption in captions:
            if (other := turned(caption)) is not None:
                yield caption, other.caption, other.kind

    def choose(self, kind: str, right: bool) -> None:
        """Count a choice between the two captions of a contrast."""
        self._accuracy.add_choice(kind, right)

    def figures(self) -> dict[str, float]:
        """See `SceneAccuracy.figures`."""
        return self._accuracy.figures()


def load_checks(folder: Path) -> SceneChecks:
    """The checks of a data set of scenes, from its `truth.json`."""
    truth = json.loads((folder / "truth.json").read_text())
    return SceneChecks({int(image_id): Scene.from_dict(scene) for image_id, scene in truth.items()})
