"""Where the things of a scene stand: boxes that fit the centre square and make the relation true.

Every layout is drawn at random from what the relation allows; one that does not fit, or would
hide too much, is None, and the scene is drawn anew.
"""

import random

from training.scenes.drawing.backdrop import SHORES
from training.scenes.world.catalogue import ABOVE, FRONT, LEFT, THINGS
from training.scenes.world.scene import Box

# Square root of a thing's box area, in units of the centre square, and the weight of each size.
SIZE_RANGES = {"small": (0.22, 0.25), "medium": (0.30, 0.37), "big": (0.44, 0.52)}
SMALLEST = 0.215  # what a medium thing may shrink to, to fit
BIG_AT_LEAST = 0.42
MOST_HIDDEN = 0.25  # share of a thing's box that another may cover
EDGE = 0.015

HORIZONS = {
    "sea": 0.50, "lake": 0.42, "beach": 0.40, "meadow": 0.55,
    "forest": 0.60, "desert": 0.55, "snow": 0.56, "city": 0.62,
}  # fmt: skip


class Wish:
    """How many of a thing, and how large, a scene would like to have."""

    def __init__(self, rng: random.Random, name: str, groups: int) -> None:
        """Draws the wishes for a thing of a scene of so many groups."""
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
        """Of one thing, in units of the centre square."""
        return self.root * THINGS[self.name].aspect ** 0.5

    @property
    def height(self) -> float:
        """Of one thing, in units of the centre square."""
        return self.root / THINGS[self.name].aspect ** 0.5

    @property
    def span(self) -> float:
        """Width of the whole group."""
        return self.width * (1 + (self.count - 1) * self.spacing)

    def shrink(self, factor: float) -> bool:
        """Makes the group smaller, if it can stay what it is called."""
        least = {"small": SMALLEST, "medium": SMALLEST, "big": BIG_AT_LEAST}[self.size]
        self.root *= min(factor, 1.0)
        return self.root >= least

    def row(self, rng: random.Random, left: float, base: float, wobble: float) -> list[Box]:
        """The boxes of the group from `left` on, standing on `base`."""
        step = self.width * self.spacing
        boxes = []
        for i in range(self.count):
            foot = base + (rng.uniform(-wobble, wobble) if self.count > 1 else 0.0)
            boxes.append((left + i * step, foot - self.height, self.width, self.height))
        return boxes


def _bases(wish: Wish, place: str, horizon: float) -> tuple[float, float]:
    """Between which heights the foot of a thing may stand."""
    level = THINGS[wish.name].level
    if level == "sky":
        return 0.06 + wish.height, max(horizon, 0.1 + wish.height)
    if place in SHORES:
        shore = horizon + SHORES[place]
        if level == "water":
            return horizon + 0.14, shore - 0.02
        return shore + 0.07, 0.96
    return horizon + 0.09, 0.96


def _near(rng: random.Random, wish: Wish, place: str, horizon: float) -> float:
    """A foot height not far from the viewer."""
    low, high = _bases(wish, place, horizon)
    return rng.uniform(low + 0.5 * (high - low), high - 0.02)


def _left(rng: random.Random, wish: Wish) -> float:
    return rng.uniform(EDGE, max(1 - EDGE - wish.span, EDGE))


def place_one(rng: random.Random, wish: Wish, place: str, horizon: float) -> list[list[Box]] | None:
    """The boxes of a scene of one group."""
    if not wish.shrink(0.96 / wish.span):
        return None
    wobble = 0.03 if THINGS[wish.name].level == "sky" else 0.015
    return [wish.row(rng, _left(rng, wish), _near(rng, wish, place, horizon), wobble)]


def place_beside(
    rng: random.Random, wishes: list[Wish], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of two groups side by side, the first left or right of the second."""
    gap = rng.uniform(0.03, 0.07)
    factor = (1 - 2 * EDGE - gap) / (wishes[0].span + wishes[1].span)
    if not all([wish.shrink(factor) for wish in wishes]):
        return None
    order = wishes if relation == LEFT else wishes[::-1]
    slack = max(1 - 2 * EDGE - gap - order[0].span - order[1].span, 0.0)
    start = EDGE + slack * rng.uniform(0, 0.5)
    second = start + order[0].span + gap + slack * rng.uniform(0, 0.5)
    shared = rng.random()  # both stand about as near to the viewer
    rows = []
    for wish, left in zip(order, (start, second), strict=True):
        low, high = _bases(wish, place, horizon)
        base = low + (high - low) * (0.5 + 0.4 * shared) + rng.uniform(-0.015, 0.015)
        rows.append(wish.row(rng, left, base, 0.012))
    return rows if relation == LEFT else rows[::-1]


def place_in_depth(
    rng: random.Random, wishes: list[Wish], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of two groups behind one another."""
    front, back = wishes if relation == FRONT else wishes[::-1]
    if (
        THINGS[front.name].level == "water"
        and THINGS[back.name].level == "ground"
        and (place in SHORES)
    ):
        return None  # the water lies behind the shore
    if not all([wish.shrink(0.92 / wish.span) for wish in wishes]):
        return None
    low, high = _bases(front, place, horizon)
    foot = high - rng.uniform(0.005, 0.03)
    low, high = _bases(back, place, horizon)
    behind = foot - front.height + back.height * rng.uniform(0.1, 0.24)
    behind = min(max(behind, low), high, foot - 0.1)
    if behind < low:
        return None
    front_left = _left(rng, front)
    # The two overlap sideways by at least half of the narrower one, so that "in front of" cannot
    # be taken for "beside".
    middle = front_left + front.span / 2 - back.span / 2
    reach = (front.span + back.span) / 2 - min(front.span, back.span) / 2
    back_left = min(max(middle + rng.uniform(-reach, reach), EDGE), 1 - EDGE - back.span)
    if abs(back_left - middle) > reach:
        return None
    rows = [front.row(rng, front_left, foot, 0.0), back.row(rng, back_left, behind, 0.006)]
    if any(_hidden(box, rows[0]) > MOST_HIDDEN for box in rows[1]):
        return None
    return rows if relation == FRONT else rows[::-1]


def place_over(
    rng: random.Random, wishes: list[Wish], relation: str, place: str, horizon: float
) -> list[list[Box]] | None:
    """Boxes of a group in the sky and one on the ground below it."""
    over, under = wishes if relation == ABOVE else wishes[::-1]
    if not all([wish.shrink(0.95 / wish.span) for wish in wishes]):
        return None
    low, high = _bases(under, place, horizon)
    factor = (high - 0.01 - 0.03 - 0.04) / (over.height + under.height)
    if not all([wish.shrink(factor) for wish in wishes]):
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
    """Share of a box that others cover (their own overlap counted twice, which errs to be safe)."""
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
