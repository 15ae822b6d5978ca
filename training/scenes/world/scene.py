"""The contents of one picture: its things, where they are, and the relation between them."""

from dataclasses import asdict, dataclass
from typing import Any

Box = tuple[float, float, float, float]
"""x, y of the upper left corner, width, height, in units of the picture's centre square:
(0, 0) is its upper left corner and (1, 1) its lower right one."""


@dataclass(frozen=True)
class Group:
    """One to three things of one kind, colour and size, side by side.

    Attributes:
        thing: a key of `catalogue.THINGS`.
        colour: one of `catalogue.COLOURS`.
        size: `small`, `medium` or `big`; captions never state `medium`.
        boxes: one box a thing, from left to right.
        flipped: whether each thing is mirrored, so that it faces left.
    """

    thing: str
    colour: str
    size: str
    boxes: tuple[Box, ...]
    flipped: tuple[bool, ...]

    @property
    def count(self) -> int:
        """Number of things in the group."""
        return len(self.boxes)


@dataclass(frozen=True)
class Scene:
    """The contents of one picture; `draw_scene` and `write_captions` depend on nothing else.

    Attributes:
        seed: decides every detail without a field of its own, such as clouds, shades and wording.
        place, time, weather: of `catalogue.PLACES`, `catalogue.TIMES`, `catalogue.WEATHERS`.
        horizon: height of the horizon in the centre square, 0 its upper edge and 1 its lower.
        groups: one or two, of different things.
        relation: of the first group to the second; None if there is one group.
    """

    seed: int
    place: str
    time: str
    weather: str
    horizon: float
    groups: tuple[Group, ...]
    relation: str | None

    def to_dict(self) -> dict[str, Any]:
        """The scene as JSON types; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        """The scene of a result of `to_dict`, or of its JSON."""
        groups = tuple(
            Group(
                thing=group["thing"],
                colour=group["colour"],
                size=group["size"],
                boxes=tuple(tuple(box) for box in group["boxes"]),
                flipped=tuple(group["flipped"]),
            )
            for group in data["groups"]
        )
        return cls(**{**data, "groups": groups})
