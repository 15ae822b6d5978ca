"""Writes five captions of a scene, in different forms, as five people might.

The first two are complete: they state every count, colour, thing and relation, the place, and
either time or weather. The others leave some of it out, but four of the five mostly say where the
things are, and three mostly how large. Every caption is true.
"""

from __future__ import annotations

import random

from training.scenes.language import lexicon
from training.scenes.world.catalogue import CONVERSE
from training.scenes.world.scene import Group, Scene


def write_captions(scene: Scene) -> list[str]:
    """Five different captions of a scene; `scene.seed` decides the wording.

    Returns:
        Lower-case ASCII without a final full stop. The first two are complete.
    """
    rng = random.Random(scene.seed ^ 0x5EED)
    writer = _Writer(scene, rng)
    captions: list[str] = []
    for form in (
        writer.complete,
        writer.complete,
        writer.listing,
        writer.close_up,
        writer.setting,
    ):
        caption = form()
        while caption in captions:
            caption = form()
        captions.append(caption)
    return captions


class _Writer:
    """Writes captions of one scene; a random generator chooses the words."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng

    def complete(self) -> str:
        """A complete caption, in one of two orders."""
        where = self._place()
        when = self._time() if self.rng.random() < 0.6 else self._weather()
        things = self._related(colour=1.0, size=0.8, side=0.8)
        if self.rng.random() < 0.25:
            return f"{where} {when}, {things}"
        return f"{things} {where} {when}"

    def listing(self) -> str:
        """The things and the place."""
        groups = list(self.scene.groups)
        self.rng.shuffle(groups)
        things = " and ".join(self._noun_phrase(group, 1.0, 0.2) for group in groups)
        if self.rng.random() < 0.4:
            verb = "is" if groups[0].count == 1 else "are"
            things = f"there {verb} {things}"
        return f"{things} {self._place()}"

    def close_up(self) -> str:
        """The things, with at most one of place, time and weather."""
        things = self._related(colour=0.6, size=0.2, side=0.0)
        if len(self.scene.groups) == 1 or self.rng.random() < 0.5:
            return f"{things} {self.rng.choice((self._time, self._place, self._weather))()}"
        return things

    def setting(self) -> str:
        """Weather, time and place first, then the things, mostly with their relation."""
        scene = self.scene
        if scene.relation is not None and self.rng.random() < 0.75:
            things = self._related(colour=0.85, size=0.75, side=0.9)
        else:
            groups = list(scene.groups)
            self.rng.shuffle(groups)
            things = " and ".join(self._noun_phrase(group, 0.85, 0.75) for group in groups)
        adjective = lexicon.WEATHER_ADJECTIVES[scene.weather]
        return f"a {adjective} {lexicon.TIME_NOUNS[scene.time]} {self._place()} with {things}"

    def _related(self, colour: float, size: float, side: float) -> str:
        """The groups with their relation, stated from the first or from the second group.

        Args:
            colour: Probability of stating a colour.
            size: Probability of stating a size that has a word.
            side: Probability of words that state the side; else "next to" may be chosen, too.
        """
        scene = self.scene
        groups, relation = scene.groups, scene.relation
        if relation is None:
            return self._noun_phrase(groups[0], max(colour, 0.9), size, doing=0.5)
        if self.rng.random() < 0.35:
            groups, relation = groups[::-1], CONVERSE[relation]
        phrases = lexicon.RELATION_PHRASES[relation]
        words = phrases[:2] if self.rng.random() < side else phrases
        first = self._noun_phrase(groups[0], colour, size, doing=0.25)
        return f"{first} {self.rng.choice(words)} {self._noun_phrase(groups[1], colour, size)}"

    def _noun_phrase(self, group: Group, colour: float, size: float, doing: float = 0.0) -> str:
        """A noun phrase, such as "two small red boats sailing".

        Args:
            group: The things.
            colour: Probability of stating the colour.
            size: Probability of stating the size, if it has a word.
            doing: Probability of a verb, if the thing has one.
        """
        rng = self.rng
        names = lexicon.NOUNS[group.thing]
        name = names[0] if rng.random() < 0.7 else rng.choice(names)
        counts = lexicon.COUNTS[group.count]
        words = [counts[0] if rng.random() < 0.85 else rng.choice(counts)]
        if group.size in lexicon.SIZE_WORDS and rng.random() < size:
            sizes = lexicon.SIZE_WORDS[group.size]
            words.append(sizes[0] if rng.random() < 0.6 else rng.choice(sizes))
        coloured = rng.random() < colour
        if coloured and group.thing not in lexicon.WORN:
            words.append(group.colour)
        words.append(name[0] if group.count == 1 else name[1])
        if words[0] == "a" and words[1][0] in lexicon.VOWELS:
            words[0] = "an"
        if coloured and group.thing in lexicon.WORN:
            words.append(self._worn(group))
        if group.thing in lexicon.DOING and rng.random() < doing:
            words.append(rng.choice(lexicon.DOING[group.thing]))
        return " ".join(words)

    def _worn(self, group: Group) -> str:
        """The colour of a person's coat, such as "in a red coat"."""
        form = self.rng.choice(lexicon.WORN[group.thing])[group.count > 1]
        if group.colour[0] in lexicon.VOWELS:
            form = form.replace("a {", "an {")
        return form.format(colour=group.colour)

    def _place(self) -> str:
        return self.rng.choice(lexicon.PLACE_PHRASES[self.scene.place])

    def _time(self) -> str:
        return self.rng.choice(lexicon.TIME_PHRASES[self.scene.time])

    def _weather(self) -> str:
        return self.rng.choice(lexicon.WEATHER_PHRASES[self.scene.weather])
