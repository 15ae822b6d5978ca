"""A caption data set on disk: images, COCO-captions JSON, and a split.

    DIR/images/...      JPEG or PNG files
    DIR/captions.json   {"images": [{"id", "file_name", ...}], "annotations": [{"image_id", ...}]}
                        an image in a tar file has its place: "tar" (which of "tars": [{"file",
                        "size"}]), "offset" and "size" in bytes
    DIR/split.json      {"train": [image ids], "val": [...], "test": [...], ...}

Every source of captions becomes this; nothing after it knows where the pictures came from.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from model.refusal import Refusal
from model.whole_folder import whole_folder
from training.data.caption_index import Captions, PictureFiles, read_coco

#: Image ids are kept in 64 bits.
MAX_ID = 2**63 - 1
#: What to do about a missing part.
MAKE_IT = "make the data set first: python -m training.prepare"


@dataclasses.dataclass(frozen=True)
class CaptionDataset:
    """The index of a caption data set; pictures stay on disk.

    Attributes:
        root: The folder.
        files: Image id -> path of the picture.
        captions: Image id -> its captions, in file order.
        splits: Split name -> image ids, in file order.
        description: What it says of itself, or nothing.
    """

    root: Path
    files: PictureFiles
    captions: Captions
    splits: dict[str, array[int]]
    description: str = ""

    @classmethod
    def load(cls, root: str | Path) -> CaptionDataset:
        """Read the index; refuse one that contradicts itself."""
        root = Path(root)
        try:
            files, captions, description = read_coco(root / "captions.json")
        except FileNotFoundError as error:
            raise Refusal(f"{error.filename} is missing; {MAKE_IT}") from None
        splits = read_json(root / "split.json", MAKE_IT)
        if not isinstance(splits, dict) or not all(_are_ids(ids) for ids in splits.values()):
            raise Refusal(f"{root / 'split.json'} must hold a list of image ids for each name")
        for name, ids in splits.items():
            unknown = np.asarray(ids, np.int64)[files.places(ids) < 0]
            if len(unknown):
                raise Refusal(
                    f"{root / 'split.json'}: split {name!r} names {len(unknown)} images that "
                    f"captions.json lacks, first {unknown[0]}"
                )
        flat = {name: array("q", ids) for name, ids in splits.items()}
        return cls(root, files, captions, flat, description)

    def ids(self, split: str) -> array[int]:
        """Image ids of a split; a missing or empty one is refused by name."""
        if not self.splits.get(split):
            known = ", ".join(f"{name} ({len(ids)})" for name, ids in self.splits.items())
            raise Refusal(f"{self.root} has no images in split {split!r}; it has: {known}")
        return self.splits[split]


def _are_ids(ids: Any) -> bool:
    """Whether this is a list of numbers that images can have."""
    return isinstance(ids, list) and all(type(i) is int and abs(i) <= MAX_ID for i in ids)


def check_target(target: str | Path) -> None:
    """Refuse to put a data set where something else is; an older data set may be replaced."""
    target = Path(target)
    made = all((target / name).exists() for name in ("captions.json", "split.json"))
    if target.exists() and not made and (not target.is_dir() or any(target.iterdir())):
        raise Refusal(f"{target} holds something that is no caption data set; give another --out")


@contextmanager
def writing_dataset(target: str | Path) -> Iterator[Path]:
    """An empty folder to write a data set into, put in place of an older one when all went well.

    Raises:
        Refusal: `target` holds something else, which is left alone.
    """
    check_target(target)
    with whole_folder(target, "captions.json") as folder:
        yield folder


@dataclasses.dataclass(frozen=True)
class TarPosition:
    """Bytes in a tar file: its number, first byte and count."""

    tar: int
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a data set that is being made.

    Attributes:
        image_id: No other picture has it.
        file_name: Under `images/`, with slashes.
        captions: At least one.
        split: The split it belongs to.
        place: Where it lies, if in a tar file and not under `images/`.
    """

    image_id: int
    file_name: str
    captions: list[str]
    split: str
    place: TarPosition | None = None


def write_index(
    folder: Path, description: str, pictures: Iterable[Picture], tars: Sequence[Path] = ()
) -> str:
    """Write `captions.json` and `split.json` of these pictures, each as it comes.

    Args:
        folder: The data set that is being made.
        description: For people.
        pictures: All of it.
        tars: The tar files that places speak of.

    Returns:
        How many pictures and captions there are, and how many pictures in each split.
    """
    splits: dict[str, list[int]] = {}
    count = 0
    aside = folder / "annotations.aside"
    with (
        (folder / "captions.json").open("w", encoding="utf-8") as index,
        aside.open("w+", encoding="utf-8") as annotations,
    ):
        head: dict[str, Any] = {"info": {"description": description}}
        if tars:
            head["tars"] = [{"file": str(tar), "size": tar.stat().st_size} for tar in tars]
        index.write(json.dumps(head)[:-1] + ', "images": [')
        for number, picture in enumerate(pictures):
            image: dict[str, Any] = {"id": picture.image_id, "file_name": picture.file_name}
            if picture.place:
                image |= dataclasses.asdict(picture.place)
            index.write((", " if number else "") + json.dumps(image))
            splits.setdefault(picture.split, []).append(picture.image_id)
            for caption in picture.captions:
                count += 1
                own = {"id": count, "image_id": picture.image_id, "caption": caption}
                annotations.write((", " if count > 1 else "") + json.dumps(own))
        index.write('], "annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, index)
        index.write("]}")
    aside.unlink()
    (folder / "split.json").write_text(json.dumps(splits))
    counts = ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())
    return f"{sum(map(len, splits.values()))} pictures, {count} captions: {counts}"


def read_json(file: Path, advice: str) -> Any:
    """The content of a file of a data set; `advice` is what to do when it is missing."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{file} is missing; {advice}") from None
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
