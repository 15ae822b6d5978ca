"""The same caption with its relation turned round: "a dog behind a house" for one in front of it.

Who knows where the things are prefers the true one of the two; who goes by which things there are
cannot tell them apart. "Next to" has no such counterpart, since it leaves the side open.
"""

from __future__ import annotations

from typing import NamedTuple

from training.scenes.language import lexicon
from training.scenes.language.statements import stated
from training.scenes.world.catalogue import ABOVE, BEHIND, BELOW, CONVERSE, FRONT, LEFT, RIGHT

#: Relation -> the name of the pair that it belongs to, in the figures.
SIDES = {
    LEFT: "left_right",
    RIGHT: "left_right",
    FRONT: "front_behind",
    BEHIND: "front_behind",
    ABOVE: "above_below",
    BELOW: "above_below",
}


class Turned(NamedTuple):
    """A caption with its relation turned round.

    Attributes:
        caption: The text.
        kind: Of `SIDES`.
    """

    caption: str
    kind: str


def turned(caption: str) -> Turned | None:
    """A caption with its relation turned round; None if it states none, or more than one."""
    spans = [claim.span for claim in stated(caption).claims if claim.kind == "relation"]
    if len(spans) != 1:
        return None
    start, end = spans[0]
    words = caption[start:end].lower()
    for relation, phrases in lexicon.RELATION_PHRASES.items():
        opposite = lexicon.RELATION_PHRASES[CONVERSE[relation]]
        if words in phrases and words not in opposite:
            other = opposite[phrases.index(words)]  # in the same wording
            return Turned(f"{caption[:start]}{other}{caption[end:]}", SIDES[relation])
    return None
