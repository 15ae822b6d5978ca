"""Scene accuracy: how much of what captions say is in the picture, and how much of it they say.

Scores of words, such as CIDEr, forgive a caption that says "red" of a blue boat. The scenes come
with their ground truth, so here every claim is checked. A colour counts only with its thing: "a
red boat and a white house" is wrong twice about a white boat and a red house.
"""

from __future__ import annotations

from collections import Counter

from training.scenes.language.statements import KINDS, Claim, false_claims, stated, truths
from training.scenes.world.scene import Scene

#: The kinds of claim that the headline figures are about.
HEADLINE = ("thing", "colour")


class SceneAccuracy:
    """Adds up the claims of many captions against the truth of their scenes."""

    def __init__(self) -> None:
        """Starts with no captions."""
        self._stated: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._true: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._captions = 0
        self._faultless = 0

    def add(self, caption: str, scene: Scene) -> list[Claim]:
        """Counts one caption of one scene.

        Returns:
            The claims of the caption that are false.
        """
        claims = stated(caption)
        wrong = false_claims(caption, scene)
        self._stated.update(claim.kind for claim in claims.claims)
        self._wrong.update(claim.kind for claim in wrong)
        for kind, values in truths(scene).items():
            said = set(claims.values(kind))
            if kind == "relation":  # one relation, which may be said from either side
                values_to_find, found = min(len(values), 1), min(len(values & said), 1)
            else:
                values_to_find, found = len(values), len(values & said)
            self._true[kind] += values_to_find
            self._found[kind] += found
        self._captions += 1
        self._faultless += not wrong
        return wrong

    def figures(self) -> dict[str, float]:
        """The figures over all captions added, each from 0 to 1.

        Returns:
            precision: Of the things and (colour, thing) pairs stated, how many are in the picture.
            recall: Of the true things and (colour, thing) pairs, how many are stated.
            hallucination_rate: Of the things stated, how many are not in the picture.
            faultless: Share of captions in which nothing at all is false.
            KIND_precision, KIND_recall: The same for each of `KINDS`.
            A share of nothing is 0: a captioner that says nothing earns nothing.
        """
        total = {
            name: sum(counter[kind] for kind in HEADLINE)
            for name, counter in (
                ("stated", self._stated),
                ("wrong", self._wrong),
                ("true", self._true),
                ("found", self._found),
            )
        }
        figures = {
            "precision": _share(total["stated"] - total["wrong"], total["stated"]),
            "recall": _share(total["found"], total["true"]),
            "hallucination_rate": _share(self._wrong["thing"], self._stated["thing"]),
            "faultless": _share(self._faultless, self._captions),
        }
        for kind in KINDS:
            right = self._stated[kind] - self._wrong[kind]
            figures[f"{kind}_precision"] = _share(right, self._stated[kind])
            figures[f"{kind}_recall"] = _share(self._found[kind], self._true[kind])
        return figures


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
