"""The words of the captions of scenes, and the fact that each of them states.

`captions` writes with these tables and `statements` reads with them, so every caption that is
written can be read.
"""

from training.scenes.world.catalogue import ABOVE, BEHIND, BELOW, FRONT, LEFT, RIGHT

#: thing -> (singular, plural), the usual word first.
NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "house": (("house", "houses"), ("cottage", "cottages")),
    "tree": (("tree", "trees"),),
    "car": (("car", "cars"),),
    "bus": (("bus", "buses"),),
    "dog": (("dog", "dogs"), ("puppy", "puppies")),
    "cat": (("cat", "cats"), ("kitty", "kitties")),
    "person": (("person", "people"),),
    "flower": (("flower", "flowers"),),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "tent": (("tent", "tents"),),
    "lighthouse": (("lighthouse", "lighthouses"),),
    "bird": (("bird", "birds"),),
    "kite": (("kite", "kites"),),
    "balloon": (("hot air balloon", "hot air balloons"), ("balloon", "balloons")),
    "plane": (("plane", "planes"), ("airplane", "airplanes")),
}

#: thing -> verbs that may follow it.
DOING: dict[str, tuple[str, ...]] = {
    "boat": ("sailing", "floating"),
    "car": ("parked",),
    "bus": ("parked",),
    "dog": ("standing",),
    "cat": ("sitting",),
    "person": ("standing",),
    "bird": ("flying",),
    "kite": ("flying",),
    "balloon": ("floating",),
    "plane": ("flying",),
}

#: count -> words for it, the usual one first.
COUNTS: dict[int, tuple[str, ...]] = {1: ("a",), 2: ("two", "a pair of"), 3: ("three",)}

#: Letters that begin a vowel sound: "an" comes before them, as in "an orange coat".
VOWELS = "aeiou"

#: size -> words for it, the usual one first; no word states `medium`.
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little"),
    "big": ("big", "large"),
}

#: relation -> phrases for it; "next to" and "beside" leave the side open.
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    LEFT: ("to the left of", "left of", "next to", "beside"),
    RIGHT: ("to the right of", "right of", "next to", "beside"),
    FRONT: ("in front of",),
    BEHIND: ("behind",),
    ABOVE: ("above", "over"),
    BELOW: ("below", "under"),
}

#: thing -> phrases for its colour after its name, (for one thing, for several things); of all
#: other things the colour comes before the name.
WORN: dict[str, tuple[tuple[str, str], ...]] = {
    "person": (
        ("in a {colour} coat", "in {colour} coats"),
        ("wearing a {colour} coat", "wearing {colour} coats"),
        ("in {colour}", "in {colour}"),
    ),
}

#: place, time or weather -> phrases for it.
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "sea": ("at sea", "on the sea", "on the ocean"),
    "lake": ("by a lake", "at the lake", "beside a lake"),
    "beach": ("on a beach", "at the beach", "on the sand"),
    "meadow": ("in a meadow", "in a green field", "on the grass"),
    "forest": ("in a forest", "in the woods"),
    "desert": ("in the desert", "in a sandy desert"),
    "snow": ("in a snowy field", "on snowy ground"),
    "city": ("in the city", "on a city street", "in town"),
}

TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("during the day", "in daylight"),
    "sunset": ("at sunset", "at dusk"),
    "night": ("at night", "after dark"),
}

WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("under a clear sky", "in clear weather"),
    "cloudy": ("under a cloudy sky", "under clouds"),
    "rain": ("in the rain", "as rain falls"),
    "snow": ("as snow falls", "while it snows"),
}

#: Weather and time in one phrase, as in "a rainy night".
WEATHER_ADJECTIVES: dict[str, str] = {
    "clear": "clear",
    "cloudy": "cloudy",
    "rain": "rainy",
    "snow": "snowy",
}
TIME_NOUNS: dict[str, str] = {"day": "day", "sunset": "evening", "night": "night"}
