"""CHAIR: which of the objects that captions mention are not in the picture.

Rohrbach, Hendricks, Burns, Darrell, Saenko: "Object Hallucination in Image Captioning" (arXiv
1809.02156, section 2.1). An object is in a picture if COCO's annotators marked it there, or if a
reference caption mentions it:

    CHAIR_i = mentions of objects that are not in the picture / all mentions of objects
    CHAIR_s = captions with such a mention / all captions

Smaller is better. What counts as a mention depends on the list of objects and synonyms, so figures
of different lists cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.data.dataset import CaptionDataset
from training.data.json_members import members
from training.data.stored_picture import StoredPicture
from training.data.tar_picture import PictureFile
from training.evaluation.scores.objects import COCO_OBJECTS, Objects
from training.evaluation.scores.words import words

NEEDED = (
    "CHAIR needs the objects of every picture: evaluate.instances must be COCO's instances file of "
    "these pictures, such as instances_val2014.json, whose image ids are those of the data set"
)


class Chair:
    """The objects of the pictures of a data set.

    Args:
        dataset: The data set.
        instances: COCO's instances file: images, annotations and categories.
        synonyms: The list of objects (see `training.evaluation.scores.objects`); None for
            that of COCO.

    Raises:
        Refusal: A file cannot be read or is another one, or its categories are not in the list.
    """

    def __init__(
        self, dataset: CaptionDataset, instances: str | Path, synonyms: str | Path | None = None
    ) -> None:
        self.dataset = dataset
        self.file = Path(instances)
        self.objects = Objects(Path(synonyms) if synonyms is not None else COCO_OBJECTS)
        self._names: dict[int, str] = {}  # image id -> file name in the instances file
        self._marked: dict[int, set[str]] = {}  # image id -> classes of its instances
        try:
            self._read()
        except Refusal:
            raise
        except FileNotFoundError:
            raise Refusal(f"{self.file} is missing; {NEEDED}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(
                f"{self.file} is no instances file ({type(error).__name__}: {error}); {NEEDED}"
            ) from None

    def _read(self) -> None:
        """Read the file entry by entry: it has outlines, which would fill the memory."""
        categories: dict[int, str] = {}
        pairs: set[tuple[int, int]] = set()
        for name, value in members(self.file):
            if name == "images":
                self._names = {each["id"]: str(each.get("file_name", "")) for each in value}
            elif name == "annotations":
                pairs = {(each["image_id"], each["category_id"]) for each in value}
            elif name == "categories":
                categories = {each["id"]: " ".join(words(each["name"])) for each in value}
        if not categories or not self._names:
            raise Refusal(f"{self.file} has no categories or no images; {NEEDED}")
        unknown = sorted(set(categories.values()) - set(self.objects.classes))
        if unknown:
            raise Refusal(
                f"{len(unknown)} categories of {self.file} are not in {self.objects.file}, first "
                f"{unknown[0]!r}; give evaluate.synonyms a list with a line for each category: its "
                "name, then its synonyms, with commas between them"
            )
        for image, category in pairs:
            self._marked.setdefault(image, set()).add(categories[category])

    def check(self, image_ids: Mapping[int, Any]) -> None:
        """Refuse pictures that the instances file does not have.

        Args:
            image_ids: Image ids of the data set.

        Raises:
            Refusal: Some are missing, or are other pictures with the same id.
        """
        missing = [i for i in image_ids if i not in self._names]
        if missing:
            raise Refusal(
                f"{len(missing)} of {len(image_ids)} pictures of {self.dataset.root} are not in "
                f"{self.file}, first image id {missing[0]}; {NEEDED}"
            )
        names = {i: _name(self.dataset.files[i]) for i in image_ids}
        others = [i for i, name in names.items() if not _same(name, self._names[i])]
        if others:
            raise Refusal(
                f"{len(others)} of {len(image_ids)} pictures of {self.dataset.root} have another "
                f"file name in {self.file}, first {names[others[0]]} and "
                f"{self._names[others[0]]}; {NEEDED}"
            )

    def false_mentions(self, image_id: int, caption: str) -> tuple[list[str], int]:
        """The objects that a caption mentions and that are not in its picture.

        Returns:
            The class of each such mention, and the number of all mentions.
        """
        present = self._marked.get(image_id, set()) | {
            name
            for reference in self.dataset.captions[image_id]
            for name in self.objects.mentions(reference)
        }
        mentioned = list(self.objects.mentions(caption))
        return [name for name in mentioned if name not in present], len(mentioned)

    def measure(
        self, generated: Mapping[int, str]
    ) -> tuple[dict[str, float], dict[int, list[str]], str]:
        """CHAIR of captions.

        Args:
            generated: Image id -> caption; at least one.

        Returns:
            `CHAIR_i` and `CHAIR_s`, from 0 to 1 (`CHAIR_i` is missing if no object is mentioned);
            image id -> the false mentions of its caption; and a line on what was counted.

        Raises:
            Refusal: As for `check`.
        """
        self.check(generated)
        found = {i: self.false_mentions(i, caption) for i, caption in generated.items()}
        mentions = sum(count for _, count in found.values())
        false = sum(len(names) for names, _ in found.values())
        captions = sum(bool(names) for names, _ in found.values())
        figures = {"CHAIR_i": false / mentions} if mentions else {}
        figures["CHAIR_s"] = captions / len(found)
        twice = self.objects.twice
        note = (
            f"CHAIR by the {len(self.objects.classes)} objects of {self.objects.file.name}: "
            f"{false} of {mentions} mentions of objects are of none in the picture, in {captions} "
            f"of {len(found)} captions."
        )
        if twice:
            note += f" The list gives {len(twice)} phrases to several objects, first {twice[0]!r}."
        return figures, {i: names for i, (names, _) in found.items()}, note


def _name(file: PictureFile) -> str:
    """The name of a picture file; empty for one in a table, which has none."""
    return "" if isinstance(file, StoredPicture) else file.name


def _same(name: str, other: str) -> bool:
    """Whether two file names can be of the same COCO picture: COCO renamed them in 2017."""
    if not name or not other or Path(name).name == Path(other).name:
        return True
    numbers = [re.findall(r"\d+", Path(each).stem)[-1:] for each in (name, other)]
    return bool(numbers[0]) and [int(n) for n in numbers[0]] == [int(n) for n in numbers[1]]
