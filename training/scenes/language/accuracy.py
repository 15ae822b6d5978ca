"""Scene accuracy: precision and recall of what captions claim about their scenes.

Scores that compare words, such as CIDEr, change little when a caption calls a blue boat red. The
contents of a scene are known exactly, so here every claim of a caption is checked against them. A
colour is checked together with its thing: for a white boat and a red house, the caption "a red boat
and a white house" has two false claims.
"""

from __future__ import annotations

from collections import Counter

from training.scenes.language.moulds import mould
from training.scenes.language.statements import KINDS, Claim, false_claims, stated, truths
from training.scenes.language.turned import SIDES
from training.scenes.world.scene import Scene

#: The kinds of claim that `precision` and `recall` count.
HEADLINE = ("thing", "colour")
#: Captions whose moulds are counted; of more captions a smaller share differs.
MOULDED = 1000


class SceneAccuracy:
    """Counts true, false and missing claims over many captions."""

    def __init__(self) -> None:
        """Start with no captions."""
        self._stated: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._true: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._captions = 0
        self._faultless = 0
        self._moulds: set[str] = set()
        self._choices: Counter[str] = Counter()
        self._right: Counter[str] = Counter()

    def add(self, caption: str, scene: Scene) -> list[Claim]:
        """Count one caption of one scene.

        Args:
            caption: Any text.
            scene: The scene that it describes.

        Returns:
            The claims of the caption that are false.
        """
        claims = stated(caption)
        wrong = false_claims(caption, scene)
        self._stated.update(claim.kind for claim in claims.claims)
        self._wrong.update(claim.kind for claim in wrong)
        for kind, values in truths(scene).items():
            said = set(claims.values(kind))
            if kind == "relation":  # one in a scene, but `truths` has every way to state it
                expected, found = min(len(values), 1), min(len(values & said), 1)
            else:
                expected, found = len(values), len(values & said)
            self._true[kind] += expected
            self._found[kind] += found
        if self._captions < MOULDED:
            self._moulds.add(mould(caption))
        self._captions += 1
        self._faultless += not wrong
        return wrong

    def add_choice(self, kind: str, right: bool) -> None:
        """Count one choice between a true caption and the same with its relation turned round.

        Args:
            kind: The kind of relation, of `turned.SIDES`.
            right: Whether the true caption got the higher log-probability.
        """
        self._choices[kind] += 1
        self._right[kind] += right

    def figures(self) -> dict[str, float]:
        """The figures over all captions counted so far.

        Returns:
            Name -> value from 0 to 1:

            precision: Fraction of the stated things and (colour, thing) pairs that are true.
            recall: Fraction of the true things and (colour, thing) pairs that are stated.
            hallucination_rate: Fraction of the stated things that are not in the picture.
            faultless: Fraction of the captions without any false claim.
            moulds: Different moulds of the first `MOULDED` captions, over the number of those.
            KIND_precision, KIND_recall: As precision and recall, for each of `KINDS`.
            choice: Fraction of right choices; and choice_KIND for each kind of relation. Only if
                there were any.

            A fraction of nothing is 0, so captions that state nothing score 0.
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
            "precision": _fraction(total["stated"] - total["wrong"], total["stated"]),
            "recall": _fraction(total["found"], total["true"]),
            "hallucination_rate": _fraction(self._wrong["thing"], self._stated["thing"]),
            "faultless": _fraction(self._faultless, self._captions),
            "moulds": _fraction(len(self._moulds), min(self._captions, MOULDED)),
        }
        if self._choices:
            figures["choice"] = _fraction(self._right.total(), self._choices.total())
            for kind in dict.fromkeys(SIDES.values()):
                if self._choices[kind]:
                    figures[f"choice_{kind}"] = _fraction(self._right[kind], self._choices[kind])
        for kind in KINDS:
            right = self._stated[kind] - self._wrong[kind]
            figures[f"{kind}_precision"] = _fraction(right, self._stated[kind])
            figures[f"{kind}_recall"] = _fraction(self._found[kind], self._true[kind])
        return figures


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
