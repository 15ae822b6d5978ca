"""Finds the claims of a caption of a scene, and checks them against the scene.

The words are those of `lexicon`, which `captions` writes with. A model may generate any text, so
unknown words are skipped, and a claim is found wherever in the caption its words are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from training.scenes.language import lexicon
from training.scenes.world.catalogue import COLOURS, CONVERSE, LEFT, RIGHT
from training.scenes.world.scene import Scene

#: The kinds of claim.
KINDS = ("thing", "colour", "count", "size", "relation", "place", "time", "weather")

#: The relation that "next to" states: left or right of.
BESIDE = "beside"


@dataclass(frozen=True)
class Claim:
    """One fact that a caption states.

    Attributes:
        kind: One of `KINDS`.
        value: `(thing,)`, `(colour, thing)`, `(thing, count)`, `(thing, size)`,
            `(thing, relation, thing)`, `(place,)`, `(time,)` or `(weather,)`.
        span: Start and end of its words in the caption: `caption[start:end]`.
    """

    kind: str
    value: tuple[str | int, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Statements:
    """All claims of one caption, in the order of its words."""

    claims: tuple[Claim, ...]

    def values(self, kind: str) -> tuple[tuple[str | int, ...], ...]:
        """The values of the claims of one kind, in order; a repeated claim is repeated."""
        return tuple(claim.value for claim in self.claims if claim.kind == kind)


def stated(caption: str) -> Statements:
    """The claims of a caption.

    Args:
        caption: Any text; words that are not in `lexicon` are skipped.
    """
    return Statements(tuple(_Reader(caption).read()))


def truths(scene: Scene) -> dict[str, frozenset[tuple[str | int, ...]]]:
    """All claims that are true of a scene: kind -> values as in `Claim`."""
    groups, sizes = scene.groups, lexicon.SIZE_WORDS
    relations = set()
    if scene.relation is not None:
        first, second = groups[0].thing, groups[1].thing
        relations = {
            (first, scene.relation, second),
            (second, CONVERSE[scene.relation], first),
        }
        if scene.relation in (LEFT, RIGHT):
            relations |= {(first, BESIDE, second), (second, BESIDE, first)}
    return {
        "thing": frozenset((group.thing,) for group in groups),
        "colour": frozenset((group.colour, group.thing) for group in groups),
        "count": frozenset((group.thing, group.count) for group in groups),
        "size": frozenset((group.thing, group.size) for group in groups if group.size in sizes),
        "relation": frozenset(relations),
        "place": frozenset({(scene.place,)}),
        "time": frozenset({(scene.time,)}),
        "weather": frozenset({(scene.weather,)}),
    }


def false_claims(caption: str, scene: Scene) -> list[Claim]:
    """The claims of a caption that are not true of a scene, in the order of its words.

    A scene has only one group of each kind of thing. So a caption that names a thing a second time
    ("a red boat and a boat") claims a thing that is not in the scene.
    """
    true = truths(scene)
    named: set[tuple[str | int, ...]] = set()
    false = []
    for claim in stated(caption).claims:
        again = claim.kind == "thing" and claim.value in named
        if again or claim.value not in true[claim.kind]:
            false.append(claim)
        if claim.kind == "thing":
            named.add(claim.value)
    return false


#: The meaning of a run of words: (kind, value) of each token that it stands for.
Meaning = tuple[tuple[str, str | int], ...]


def _meanings() -> dict[tuple[str, ...], Meaning]:
    """Each run of words that has a meaning -> its meaning."""
    table: dict[str, Meaning] = {}
    for thing, names in lexicon.NOUNS.items():
        for name in names:
            table |= {word: (("noun", thing),) for word in name}
    table |= {colour: (("colour", colour),) for colour in COLOURS}
    for size, words in lexicon.SIZE_WORDS.items():
        table |= {word: (("size", size),) for word in words}
    for count, words in lexicon.COUNTS.items():
        table |= {word: (("count", count),) for word in words}
    table |= {"an": (("count", 1),), "one": (("count", 1),), "the": (("known", 1),)}
    for relation, phrases in lexicon.RELATION_PHRASES.items():
        for phrase in phrases:
            open_side = phrase in lexicon.RELATION_PHRASES[CONVERSE[relation]]
            table[phrase] = (("relation", BESIDE if open_side else relation),)
    for kind, phrases_of in (
        ("place", lexicon.PLACE_PHRASES),
        ("time", lexicon.TIME_PHRASES),
        ("weather", lexicon.WEATHER_PHRASES),
    ):
        for value, phrases in phrases_of.items():
            table |= {phrase: ((kind, value),) for phrase in phrases}
    for weather, adjective in lexicon.WEATHER_ADJECTIVES.items():
        for time, noun in lexicon.TIME_NOUNS.items():
            table[f"{adjective} {noun}"] = (("weather", weather), ("time", time))
    for forms in lexicon.WORN.values():
        for form in (form for pair in forms for form in pair):
            for colour in COLOURS:
                worn = form.format(colour=colour)
                if colour[0] in lexicon.VOWELS:
                    worn = worn.replace(" a ", " an ")
                table[worn] = (("worn", colour),)
    # Parts of the phrases above that state the same in another wording.
    for kind, value, parts in _PARTS:
        table |= {part: ((kind, value),) for part in parts if part not in table}
    return {tuple(words.split()): meaning for words, meaning in table.items()}


_PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("place", "sea", ("sea", "ocean")),
    ("place", "lake", ("lake",)),
    ("place", "beach", ("beach",)),
    ("place", "meadow", ("meadow", "green field", "grass")),
    ("place", "forest", ("forest", "woods")),
    ("place", "desert", ("desert", "sandy desert")),
    ("place", "snow", ("snowy field", "snowy ground")),
    ("place", "city", ("city", "city street", "street", "town")),
    ("time", "day", ("day", "daylight")),
    ("time", "sunset", ("sunset", "dusk", "evening")),
    ("time", "night", ("night", "dark")),
    ("weather", "clear", ("clear sky", "clear weather")),
    ("weather", "cloudy", ("cloudy", "cloudy sky", "clouds")),
    ("weather", "rain", ("rain", "rainy", "rain falls")),
    ("weather", "snow", ("snow falls", "it snows")),
)
_MEANINGS = _meanings()
_LONGEST = max(len(words) for words in _MEANINGS)
# After these words a new noun phrase begins: a number or colour before them does not belong to a
# thing after them.
_BREAKS = frozenset(("with", "near", "at", "on", "in", "by", "of"))


@dataclass(frozen=True)
class Token:
    """A run of words with a meaning, or a single word without one (kind `word`)."""

    kind: str
    value: str | int
    span: tuple[int, int]


class _Reader:
    """Reads one caption from left to right."""

    def __init__(self, caption: str) -> None:
        self.tokens = list(tokens(caption.lower()))
        self.pending: list[Token] = []  # numbers, sizes and colours before their noun
        self.last: str | None = None  # the last thing named
        self.before: str | None = None  # the last but one
        self.named: set[str] = set()
        self.relation: Token | None = None

    def read(self) -> Iterator[Claim]:
        """The claims, in the order of the words."""
        for index, token in enumerate(self.tokens):
            following = self.tokens[index + 1] if index + 1 < len(self.tokens) else None
            if token.kind in ("count", "size", "colour", "known"):
                self.pending.append(token)
            elif token.kind == "noun":
                yield from self._noun(token)
            elif token.kind == "worn":
                adjective = following is not None and following.kind in ("noun", "size", "colour")
                if adjective or self.last is None:
                    self.pending.append(Token("colour", token.value, token.span))
                else:
                    yield Claim("colour", (token.value, self.last), token.span)
            elif token.kind == "relation":
                self.pending.clear()
                if following is not None and following.value in ("it", "them"):
                    # "a house with a dog behind it": the dog is behind the house.
                    if self.last is not None and self.before is not None:
                        yield Claim("relation", (self.last, token.value, self.before), token.span)
                elif self.last is not None:
                    self.relation = token
            elif token.kind == "word":
                if token.value in _BREAKS:
                    self.pending.clear()
            else:
                self.pending.clear()
                yield Claim(token.kind, (token.value,), token.span)

    def _noun(self, token: Token) -> Iterator[Claim]:
        thing = str(token.value)
        known = any(word.kind == "known" for word in self.pending)
        if not (known and thing in self.named):
            yield Claim("thing", (thing,), token.span)
        counts = [word for word in self.pending if word.kind == "count"]
        if counts:  # of "a group of three boats" the last number counts
            yield Claim("count", (thing, counts[-1].value), counts[-1].span)
        for word in self.pending:
            if word.kind == "size":
                yield Claim("size", (thing, word.value), word.span)
            elif word.kind == "colour":
                yield Claim("colour", (word.value, thing), word.span)
        if self.relation is not None and self.last is not None:
            yield Claim("relation", (self.last, self.relation.value, thing), self.relation.span)
        self.relation = None
        self.pending.clear()
        self.named.add(thing)
        self.before, self.last = self.last, thing


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text; at each word the longest run of words with a meaning is taken."""
    words = [(match.group(), match.span()) for match in re.finditer(r"[a-z0-9]+", text)]
    index = 0
    while index < len(words):
        for length in range(min(_LONGEST, len(words) - index), 0, -1):
            run = words[index : index + length]
            meaning = _MEANINGS.get(tuple(word for word, _ in run))
            if meaning is not None:
                span = (run[0][1][0], run[-1][1][1])
                for kind, value in meaning:
                    yield Token(kind, value, span)
                index += length
                break
        else:
            yield Token("word", words[index][0], words[index][1])
            index += 1
