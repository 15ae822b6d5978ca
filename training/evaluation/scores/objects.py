"""Finds objects in captions: the classes of a list, by their names and synonyms.

A list of objects is a text file with a line for each class: its name, then its synonyms, with
commas between them. `coco_objects.txt` has the 80 classes of COCO (arXiv 1405.0312). A plural is
found by its singular. Where several phrases fit, the longest is taken: "hot dog" is no dog.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model.refusal import Refusal
from training.evaluation.scores.words import words

COCO_OBJECTS = Path(__file__).with_name("coco_objects.txt")
#: Phrases with the name of an object in them that stand for none of it.
NOT_OBJECTS = (
    *("train track", "train station", "bus stop", "bus station", "bus lane", "boat house"),
    *("car seat", "bike rack", "bike lane", "bike path", "bird house", "bird cage", "bird feeder"),
    *("bird bath", "dog house", "dog food", "dog leash", "cat food", "horse shoe", "cow bell"),
    *("cup holder", "bottle opener", "book case", "book shelf", "bed room", "table cloth"),
    *("phone booth", "pizza box", "mouse pad", "orange juice", "apple juice", "apple tree"),
    *("orange tree", "tv stand", "tv show", "ball game", "ball field"),
)
#: Phrases of which a part is the object, because the other part is the name of one too.
PARTS = {
    "toilet seat": "toilet",
    "train car": "train",
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in
       ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")},
    **{f"passenger {vehicle}": vehicle for vehicle in ("train", "jet", "plane", "bus")},
}  # fmt: skip
#: Plurals that no rule gives.
IRREGULAR = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "persons",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "calf": "calves",
    "knife": "knives",
    "wife": "wives",
    "policeman": "policemen",
    "policewoman": "policewomen",
    "fireman": "firemen",
    "gentleman": "gentlemen",
}


class Objects:
    """A list of objects.

    Args:
        file: The list; see above.

    Attributes:
        file: The same.
        classes: The names of the classes, in the order of the file.
        twice: Phrases that the file gives to several classes; the last one has it.

    Raises:
        Refusal: The file cannot be read, or has no class.
    """

    def __init__(self, file: Path = COCO_OBJECTS) -> None:
        self.file = file
        self.classes: list[str] = []
        self.twice: list[str] = []
        self._class_of: dict[tuple[str, ...], str | None] = {}
        for line in _lines(file):
            phrases = [tuple(words(phrase)) for phrase in line.split(",")]
            phrases = [phrase for phrase in phrases if phrase]
            if not phrases:
                continue
            name = " ".join(phrases[0])
            self.classes.append(name)
            for phrase in phrases:
                if self._class_of.get(phrase, name) != name:
                    self.twice.append(" ".join(phrase))
                self._class_of[phrase] = name
        if not self.classes:
            raise Refusal(f"{file} has no class; write a line for each: name, synonym, synonym")
        self._add_phrases()
        self._longest = max(map(len, self._class_of))

    def _add_phrases(self) -> None:
        """Add phrases that stand for something else than their words, then all plurals."""
        for text in NOT_OBJECTS:
            self._class_of.setdefault(tuple(text.split()), None)
        for text, part in PARTS.items():
            name = self._class_of.get((part,))
            if name is not None and self._class_of.get(tuple(text.split())) is None:
                self._class_of[tuple(text.split())] = name
        for phrase, own in list(self._class_of.items()):
            self._class_of.setdefault((*phrase[:-1], plural(phrase[-1])), own)

    def mentions(self, caption: str) -> Iterator[str]:
        """The class of each object that a caption mentions, in order; one twice if said twice."""
        found, start = words(caption), 0
        while start < len(found):
            for length in range(min(self._longest, len(found) - start), 0, -1):
                phrase = tuple(found[start : start + length])
                if phrase in self._class_of:
                    name = self._class_of[phrase]
                    if name is not None:
                        yield name
                    start += length
                    break
            else:
                start += 1


def plural(word: str) -> str:
    """The plural of an English noun in lower case."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        return word[:-1] + "ies"
    return word + "s"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Refusal(f"{file} is not UTF-8 text: {error}") from None
    except FileNotFoundError:
        raise Refusal(f"{file} is missing; evaluate.synonyms names a list of objects") from None
