"""The world of the scenes: its places, things, colours and relations, and what goes where."""

from dataclasses import dataclass

PLACES = ("sea", "lake", "beach", "meadow", "forest", "desert", "snow", "city")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rain", "snow")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
SIZES = ("small", "medium", "big")

LEFT, RIGHT, FRONT, BEHIND, ABOVE, BELOW = (
    "left of",
    "right of",
    "in front of",
    "behind",
    "above",
    "below",
)
CONVERSE = {LEFT: RIGHT, RIGHT: LEFT, FRONT: BEHIND, BEHIND: FRONT, ABOVE: BELOW, BELOW: ABOVE}

# Weather that a place can have; the desert stays dry, and flakes fall where there is frost.
PLACE_WEATHERS = {
    "sea": ("clear", "cloudy", "rain"),
    "lake": ("clear", "cloudy", "rain"),
    "beach": ("clear", "cloudy", "rain"),
    "meadow": ("clear", "cloudy", "rain"),
    "forest": ("clear", "cloudy", "rain", "snow"),
    "desert": ("clear", "cloudy"),
    "snow": ("clear", "cloudy", "snow"),
    "city": ("clear", "cloudy", "rain", "snow"),
}


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    Attributes:
        aspect: width / height of its box.
        level: `sky`, `ground` or `water`, where it lives.
        places: where it may be seen.
    """

    aspect: float
    level: str
    places: tuple[str, ...]


_SKY = ("sea", "lake", "beach", "meadow", "desert", "snow", "city")
THINGS: dict[str, Kind] = {
    "boat": Kind(0.95, "water", ("sea", "lake", "beach")),
    "house": Kind(1.0, "ground", ("lake", "meadow", "forest", "desert", "snow")),
    "tree": Kind(0.78, "ground", ("lake", "meadow", "snow", "city")),
    "car": Kind(1.7, "ground", ("meadow", "forest", "desert", "snow", "city")),
    "bus": Kind(1.65, "ground", ("meadow", "desert", "snow", "city")),
    "dog": Kind(1.25, "ground", ("lake", "beach", "meadow", "forest", "snow", "city")),
    "cat": Kind(0.82, "ground", ("lake", "meadow", "forest", "desert", "snow", "city")),
    "person": Kind(0.55, "ground", ("lake", "beach", "meadow", "forest", "desert", "snow", "city")),
    "flower": Kind(0.66, "ground", ("lake", "meadow", "forest", "desert")),
    "umbrella": Kind(1.0, "ground", ("beach", "meadow", "city")),
    "tent": Kind(1.35, "ground", ("lake", "beach", "meadow", "forest", "desert", "snow")),
    "lighthouse": Kind(0.46, "ground", ("sea", "beach", "meadow")),
    "bird": Kind(1.3, "sky", (*_SKY, "forest")),
    "kite": Kind(0.7, "sky", ("sea", "beach", "meadow", "desert", "snow", "lake")),
    "balloon": Kind(0.74, "sky", _SKY),
    "plane": Kind(1.6, "sky", _SKY),
}

# What no scene of train, val or test shows: two colours of every thing ...
HELD_COLOURS: dict[str, tuple[str, str]] = {
    "boat": ("pink", "green"),
    "house": ("blue", "orange"),
    "tree": ("purple", "yellow"),
    "car": ("yellow", "white"),
    "bus": ("black", "pink"),
    "dog": ("red", "green"),
    "cat": ("blue", "yellow"),
    "person": ("white", "purple"),
    "flower": ("blue", "red"),
    "umbrella": ("purple", "black"),
    "tent": ("white", "red"),
    "lighthouse": ("yellow", "orange"),
    "bird": ("purple", "white"),
    "kite": ("black", "orange"),
    "balloon": ("green", "black"),
    "plane": ("pink", "blue"),
}

# ... and one relation of every thing. "dog left of house" is both (dog, left of) and
# (house, right of), so a scene is kept out of train when either side of it is held out.
HELD_RELATIONS: dict[str, str] = {
    "boat": RIGHT,
    "house": FRONT,
    "tree": LEFT,
    "car": BEHIND,
    "bus": RIGHT,
    "dog": LEFT,
    "cat": BEHIND,
    "person": RIGHT,
    "flower": LEFT,
    "umbrella": FRONT,
    "tent": RIGHT,
    "lighthouse": LEFT,
    "bird": RIGHT,
    "kite": LEFT,
    "balloon": RIGHT,
    "plane": LEFT,
}


def held_relation(first: str, relation: str, second: str) -> bool:
    """Whether `first relation second`, seen from either side, is a held-out pair."""
    return HELD_RELATIONS[first] == relation or HELD_RELATIONS[second] == CONVERSE[relation]
