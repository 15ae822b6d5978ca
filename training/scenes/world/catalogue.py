"""What scenes may show: places, things, colours and relations, and which of them go together."""

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
#: Relation of a first thing to a second -> relation of the second to the first.
CONVERSE = {LEFT: RIGHT, RIGHT: LEFT, FRONT: BEHIND, BEHIND: FRONT, ABOVE: BELOW, BELOW: ABOVE}

#: Place -> the weather that it may have.
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

#: Place -> how far below the horizon its water ends and its ground begins.
SHORES = {"lake": 0.36, "beach": 0.25}


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    Attributes:
        aspect: width / height of its box.
        level: `sky`, `ground` or `water`: what it is drawn on.
        places: the places where it may be.
    """

    aspect: float
    level: str
    places: tuple[str, ...]


_OPEN_SKY = ("sea", "lake", "beach", "meadow", "desert", "snow", "city")
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
    "bird": Kind(1.3, "sky", (*_OPEN_SKY, "forest")),
    "kite": Kind(0.7, "sky", ("sea", "beach", "meadow", "desert", "snow", "lake")),
    "balloon": Kind(0.74, "sky", _OPEN_SKY),
    "plane": Kind(1.6, "sky", _OPEN_SKY),
}

#: Thing -> two colours that it never has in the splits train, val and test.
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

#: Thing -> one relation to another thing that it never has in those splits. "dog left of house" is
#: both (dog, left of) and (house, right of); neither of the two may be held out.
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
    """Whether (first, relation) or (second, converse relation) is a held-out pair."""
    return HELD_RELATIONS[first] == relation or HELD_RELATIONS[second] == CONVERSE[relation]
