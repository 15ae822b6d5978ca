"""The ground truth of one picture: what is in it, where, and how the two groups stand."""

from dataclasses import asdict, dataclass
from typing import Any

Box = tuple[float, float, float, float]
"""x, y of the upper left corner, width, height, in units of the picture's centre square:
(0, 0) is its upper left corner and (1, 1) its lower right one."""


@dataclass(frozen=True)
class Group:
    """One to three things of one kind, colour and size, side by side.

    Attributes:
        thing: a key of `world.THINGS`.
        colour: one of `world.COLOURS`.
        size: `small`, `medium` or `big`; `medium` is never put into words.
        boxes: one box a thing, from left to right.
        flipped: whether each thing looks to the left.
    """

    thing: str
    colour: str
    size: str
    boxes: tuple[Box, ...]
    flipped: tuple[bool, ...]

    @property
    def count(self) -> int:
        """How many things the group has."""
        return len(self.boxes)


@dataclass(frozen=True)
class Scene:
    """One picture in words and numbers; `draw_scene` and `write_captions` depend on nothing else.

    Attributes:
        seed: decides every detail that has no field here: clouds, shades, wording.
        place, time, weather: of `world.PLACES`, `world.TIMES`, `world.WEATHERS`.
        horizon: height of the horizon in the centre square, 0 its upper edge and 1 its lower.
        groups: one or two, of different things.
        relation: how the first group stands to the second; None when there is one group.
    """

    seed: int
    place: str
    time: str
    weather: str
    horizon: float
    groups: tuple[Group, ...]
    relation: str | None

    def to_dict(self) -> dict[str, Any]:
        """The scene as JSON types; `from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        """The scene that `to_dict` (or its JSON) describes."""
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
