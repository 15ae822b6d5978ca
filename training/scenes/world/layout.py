"""Boxes for the things of a scene, at random, such that the relation is true.

A function `arrange_*` returns None if the boxes do not fit the centre square, or if one thing would
hide too much of another; then the scene is sampled again. Lengths are in units of the centre
square, and y grows downwards. A *base* is the y of the lower edge of a box.
"""

import random

from training.scenes.world.catalogue import ABOVE, FRONT, LEFT, SHORES, THINGS
from training.scenes.world.scene import Box

#: Size -> lowest and highest square root of the area of a thing's box.
SIZE_RANGES = {"small": (0.22, 0.25), "medium": (0.30, 0.37), "big": (0.44, 0.52)}
#: Size -> to what it may shrink in order to fit.
SMALLEST = {"small": 0.215, "medium": 0.215, "big": 0.42}
#: Fraction of a thing's box that other things may cover.
MOST_HIDDEN = 0.25
#: Margin at the left and at the right.
EDGE = 0.015

#: Place -> y of the horizon.
HORIZONS = {
    "sea": 0.50, "lake": 0.42, "beach": 0.40, "meadow": 0.55,
    "forest": 0.60, "desert": 0.55, "snow": 0.56, "city": 0.62,
}  # fmt: skip


class GroupPlan:
    """The number and size of one group's things, before they have boxes.

    Args:
        rng: chooses them.
        name: of the thing.
        groups: number of groups in the scene.

    Attributes:
        count: number of things, from 1 to 3.
        size: `small`, `medium` or `big`.
        root: square root of the area of one thing's box.
        spacing: distance from one thing's left edge to the next one's, over the width of a thing.
    """

    def __init__(self, rng: random.Random, name: str, groups: int) -> None:
        self.name = name
        self.count = rng.choices((1, 2, 3), (0.55, 0.27, 0.18))[0]
        self.size = rng.choices(("small", "medium", "big"), (0.27, 0.48, 0.25))[0]
        if self.size == "big" and self.count > (2 if groups == 1 else 1):
            self.size = "medium"
        self.root = rng.uniform(*SIZE_RANGES[self.size])
        if self.size == "medium" and self.count == 1:
            self.root += 0.02
        self.spacing = rng.uniform(1.03, 1.12)

    @property
    def width(self) -> float:
        """Width of one thing."""
        return self.root * THINGS[self.name].aspect ** 0.5

    @property
    def height(self) -> float:
        """Height of one thing."""
        return self.root / THINGS[self.name].aspect ** 0.5

    @property
    def span(self) -> float:
        """Width of the whole group."""
        return self.width * (1 + (self.count - 1) * self.spacing)

    def shrink(self, factor: float) -> bool:
        """Scale the things by `factor`, if that is below 1; return whether they keep their size."""
        self.root *= min(factor, 1.0)
        return self.root >= SMALLEST[self.size]

    def row(self, rng: random.Random, left: float, base: float, wobble: float) -> list[Box]:
        """The boxes of the group, side by side.

        Args:
            rng: moves each thing up or down, if there are several.
            left: x of the first box.
            base: y of the lower edges.
            wobble: by how much a lower edge may differ from `base`.
        """
        step = self.width * self.spacing
        boxes = []
        for i in range(self.count):
            foot = base + (rng.uniform(-wobble, wobble) if self.count > 1 else 0.0)
            boxes.append((left + i * step, foot - self.height, self.width, self.height))
        return boxes


def _bases(plan: GroupPlan, place: str, horizon: float) -> tuple[float, float]:
    """The range of the base of a thing at a place."""
    level = THINGS[plan.name].level
    if level == "sky":
        return 0.06 + plan.height, max(horizon, 0.1 + plan.height)
    if place in SHORES:
        shore = horizon + SHORES[place]
        if level == "water":
            return horizon + 0.14, shore - 0.02
        return shore + 0.07, 0.96
    return horizon + 0.09, 0.96


def _near(rng: random.Random, plan: GroupPlan, place: str, horizon: float) -> float:
    """A base in the lower half of the range, which is near to the viewer."""
    low, high = _bases(plan, place, horizon)
    return rng.uniform(low + 0.5 * (high - low), high - 0.02)


def _left(rng: random.Random, plan: GroupPlan) -> float:
    """The x of a group, such that it fits."""
    return rng.uniform(EDGE, max(1 - EDGE - plan.span, EDGE))


def arrange_one(
    rng: random.Random, plan: GroupPlan, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of a single group."""
    if not plan.shrink(0.96 / plan.span):
        return None
    wobble = 0.03 if THINGS[plan.name].level == "sky" else 0.015
    return [plan.row(rng, _left(rng, plan), _near(rng, plan, place, horizon), wobble)]


def arrange_beside(
    rng: random.Random, plans: list[GroupPlan], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of two groups of which the first is left or right of the second."""
    gap = rng.uniform(0.03, 0.07)
    factor = (1 - 2 * EDGE - gap) / (plans[0].span + plans[1].span)
    if not all([plan.shrink(factor) for plan in plans]):
        return None
    order = plans if relation == LEFT else plans[::-1]
    slack = max(1 - 2 * EDGE - gap - order[0].span - order[1].span, 0.0)
    start = EDGE + slack * rng.uniform(0, 0.5)
    second = start + order[0].span + gap + slack * rng.uniform(0, 0.5)
    shared = rng.random()  # both are about equally near to the viewer
    rows = []
    for plan, left in zip(order, (start, second), strict=True):
        low, high = _bases(plan, place, horizon)
        base = low + (high - low) * (0.5 + 0.4 * shared) + rng.uniform(-0.015, 0.015)
        rows.append(plan.row(rng, left, base, 0.012))
    return rows if relation == LEFT else rows[::-1]


def arrange_in_depth(
    rng: random.Random, plans: list[GroupPlan], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of two groups of which the first is in front of or behind the second."""
    front, back = plans if relation == FRONT else plans[::-1]
    if (
        THINGS[front.name].level == "water"
        and THINGS[back.name].level == "ground"
        and (place in SHORES)
    ):
        return None  # the water is behind the shore
    if not all([plan.shrink(0.92 / plan.span) for plan in plans]):
        return None
    low, high = _bases(front, place, horizon)
    foot = high - rng.uniform(0.005, 0.03)
    low, high = _bases(back, place, horizon)
    behind = foot - front.height + back.height * rng.uniform(0.1, 0.24)
    behind = min(max(behind, low), high, foot - 0.1)
    if behind < low:
        return None
    front_left = _left(rng, front)
    # The groups overlap sideways by at least half of the narrower one; otherwise "beside" would be
    # as true as "in front of".
    middle = front_left + front.span / 2 - back.span / 2
    reach = (front.span + back.span) / 2 - min(front.span, back.span) / 2
    back_left = min(max(middle + rng.uniform(-reach, reach), EDGE), 1 - EDGE - back.span)
    if abs(back_left - middle) > reach:
        return None
    rows = [front.row(rng, front_left, foot, 0.0), back.row(rng, back_left, behind, 0.006)]
    if any(_hidden(box, rows[0]) > MOST_HIDDEN for box in rows[1]):
        return None
    return rows if relation == FRONT else rows[::-1]


def arrange_above(
    rng: random.Random, plans: list[GroupPlan], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of two groups of which one is in the sky, above the other."""
    over, under = plans if relation == ABOVE else plans[::-1]
    if not all([plan.shrink(0.95 / plan.span) for plan in plans]):
        return None
    low, high = _bases(under, place, horizon)
    factor = (high - 0.01 - 0.03 - 0.04) / (over.height + under.height)
    if not all([plan.shrink(factor) for plan in plans]):
        return None
    foot = max(rng.uniform(low, high), min(high, over.height + under.height + 0.09))
    free = foot - under.height - over.height - 0.05
    if free < 0:
        return None
    top = 0.02 + rng.uniform(0, min(free, 0.2))
    under_left = _left(rng, under)
    middle = under_left + under.span / 2 - over.span / 2
    reach = 0.15 + (under.span + over.span) / 2 - min(under.span, over.span) / 2 - 0.1
    over_left = min(max(middle + rng.uniform(-reach, reach), EDGE), 1 - EDGE - over.span)
    if abs(over_left - middle) > reach:
        return None
    rows = [
        over.row(rng, over_left, top + over.height, 0.012),
        under.row(rng, under_left, foot, 0.01),
    ]
    return rows if relation == ABOVE else rows[::-1]


def _hidden(box: Box, covers: list[Box]) -> float:
    """Fraction of a box that others cover; where these overlap each other it is counted twice."""
    x, y, w, h = box
    covered = 0.0
    for cx, cy, cw, ch in covers:
        across = min(x + w, cx + cw) - max(x, cx)
        down = min(y + h, cy + ch) - max(y, cy)
        covered += max(across, 0.0) * max(down, 0.0)
    return covered / (w * h)


def fits(rows: list[list[Box]]) -> bool:
    """Whether every box lies within the centre square."""
    return all(
        x >= 0 and x + w <= 1 and y >= 0.005 and y + h <= 0.995
        for row in rows
        for x, y, w, h in row
    )
