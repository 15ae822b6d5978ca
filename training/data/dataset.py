"""A caption data set on disk: images, COCO-captions JSON, and a split.

    DIR/images/...      picture files
    DIR/captions.json   {"images": [{"id", "file_name", ...}], "annotations": [{"image_id", ...}]}
                        an image may have "sha256" of its picture file, in hex
                        an image in a tar file also has "tar" (index in the list "tars": [{"file",
                        "size"}]), "offset" and "size" in bytes
    DIR/split.json      {"train": [image ids], "val": [...], "test": [...], ...}; an image is in one
                        split at most

Every source of `training.sources` writes this format, so that the later stages need no other.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from model.refusal import Refusal
from model.whole_folder import whole_folder
from training.data.caption_index import Captions, PictureFiles, read_coco
from training.data.splits import canonical_split

#: The largest image id: ids are kept in arrays of int64.
MAX_ID = 2**63 - 1
#: Advice when a file of the data set is missing.
MAKE_IT = "make the data set first: python -m training.prepare"


@dataclasses.dataclass(frozen=True)
class CaptionDataset:
    """The index of a caption data set; pictures and captions stay on disk.

    Attributes:
        root: The folder.
        files: Image id -> picture file.
        captions: Image id -> its captions, in file order.
        splits: Split name -> image ids, in file order.
        description: `info.description` of captions.json; may be empty.
    """

    root: Path
    files: PictureFiles
    captions: Captions
    splits: dict[str, array[int]]
    description: str = ""

    @classmethod
    def load(cls, root: str | Path) -> CaptionDataset:
        """Read the index of the data set in a folder.

        Raises:
            Refusal: A file is missing or has another format, or the files contradict each other.
        """
        root = Path(root)
        try:
            files, captions, description = read_coco(root / "captions.json")
        except FileNotFoundError as error:
            raise Refusal(f"{error.filename} is missing; {MAKE_IT}") from None
        splits = read_json(root / "split.json", MAKE_IT)
        if not isinstance(splits, dict) or not all(_are_ids(ids) for ids in splits.values()):
            raise Refusal(f"{root / 'split.json'} must hold a list of image ids for each name")
        _check_names(root / "split.json", splits)
        for name, ids in splits.items():
            unknown = np.asarray(ids, np.int64)[files.rows(ids) < 0]
            if len(unknown):
                raise Refusal(
                    f"{root / 'split.json'}: split {name!r} names {len(unknown)} images that "
                    f"captions.json lacks, first {unknown[0]}"
                )
        flat = {name: array("q", ids) for name, ids in splits.items()}
        _check_disjoint(root / "split.json", flat)
        return cls(root, files, captions, flat, description)

    def ids(self, split: str) -> array[int]:
        """Image ids of a split.

        Raises:
            Refusal: There is no such split, or it is empty; the message lists the splits.
        """
        if not self.splits.get(split):
            known = ", ".join(f"{name} ({len(ids)})" for name, ids in self.splits.items())
            raise Refusal(f"{self.root} has no images in split {split!r}; it has: {known}")
        return self.splits[split]


def _check_names(file: Path, splits: Mapping[str, Any]) -> None:
    """Refuse another word for train, val or test: no stage would find that split."""
    for name in splits:
        try:
            expected = canonical_split(name)
        except ValueError:  # a split of the user's own, which evaluate.splits may name
            continue
        if name != expected:
            raise Refusal(f"{file}: split {name!r} must be called {expected!r} here; rename it")


def _check_disjoint(file: Path, splits: Mapping[str, array[int]]) -> None:
    """Refuse an image that is in two splits, or in one twice: scores on it would mislead."""
    every = np.concatenate([np.asarray(ids, np.int64) for ids in [array("q"), *splits.values()]])
    unique, counts = np.unique(every, return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        first = int(repeated[0])
        names = [name for name, ids in splits.items() for _ in range(ids.count(first))]
        raise Refusal(
            f"{file} names {len(repeated)} images more than once, first {first} in "
            f"{' and '.join(names)}; an image must be in one split only, else the captioner is "
            "scored on pictures that it was trained on"
        )


def _are_ids(ids: Any) -> bool:
    """Whether this is a list of whole numbers that fit in 64 bits."""
    return isinstance(ids, list) and all(type(i) is int and abs(i) <= MAX_ID for i in ids)


def check_target(target: str | Path) -> None:
    """Check that a data set may be written to this folder.

    Raises:
        Refusal: It holds something that is not a data set, which would be lost.
    """
    target = Path(target)
    replaceable = all((target / name).exists() for name in ("captions.json", "split.json"))
    if target.exists() and not replaceable and (not target.is_dir() or any(target.iterdir())):
        raise Refusal(f"{target} holds something that is no caption data set; give another --out")


@contextmanager
def writing_dataset(target: str | Path) -> Iterator[Path]:
    """An empty folder to write a data set into; it becomes `target` when the block ends well.

    After an error in the block, `target` is as it was before: an older data set, or nothing.

    Raises:
        Refusal: `target` holds something that is not a data set, which would be lost.
    """
    check_target(target)
    with whole_folder(target, "captions.json") as folder:
        yield folder


@dataclasses.dataclass(frozen=True)
class TarPosition:
    """The byte range of a picture in a tar file.

    Attributes:
        tar: Index of the tar file in the data set's list.
        offset: Of the first byte.
        size: In bytes.
    """

    tar: int
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a data set that is being written.

    Attributes:
        image_id: Unique in the data set.
        file_name: Path within `images/`, with slashes; for a picture in a tar file, its name there.
        captions: At least one.
        split: The split it belongs to.
        position: Its bytes, if it is in a tar file and not in `images/`.
        sha256: Of the picture file, in hex; None if it is not known.
    """

    image_id: int
    file_name: str
    captions: list[str]
    split: str
    position: TarPosition | None = None
    sha256: str | None = None


def write_index(
    folder: Path,
    description: str,
    pictures: Iterable[Picture],
    tars: Sequence[Path] = (),
    moved: Callable[[], Mapping[int, str]] = dict,
) -> str:
    """Write `captions.json` and `split.json`, one picture after another to save memory.

    Args:
        folder: The folder of the data set.
        description: A few words about the data set, for `info.description`.
        pictures: All pictures.
        tars: The tar files that `Picture.position` refers to.
        moved: Called after the last picture; gives image id -> split of each picture that belongs
            to another split than `Picture.split`.

    Returns:
        The numbers of pictures, of captions, and of pictures in each split, as one line of text.
    """
    splits: dict[str, list[int]] = {}
    count = 0
    # captions.json lists all images before all annotations; the annotations wait in a file.
    annotations_file = folder / "annotations.part"
    with (
        (folder / "captions.json").open("w", encoding="utf-8") as index,
        annotations_file.open("w+", encoding="utf-8") as annotations,
    ):
        head: dict[str, Any] = {"info": {"description": description}}
        if tars:
            head["tars"] = [{"file": str(tar), "size": tar.stat().st_size} for tar in tars]
        index.write(json.dumps(head)[:-1] + ', "images": [')
        for number, picture in enumerate(pictures):
            image: dict[str, Any] = {"id": picture.image_id, "file_name": picture.file_name}
            if picture.position:
                image |= dataclasses.asdict(picture.position)
            if picture.sha256:
                image["sha256"] = picture.sha256
            index.write((", " if number else "") + json.dumps(image))
            splits.setdefault(picture.split, []).append(picture.image_id)
            for caption in picture.captions:
                count += 1
                annotation = {"id": count, "image_id": picture.image_id, "caption": caption}
                annotations.write((", " if count > 1 else "") + json.dumps(annotation))
        index.write('], "annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, index)
        index.write("]}")
    annotations_file.unlink()
    if moves := moved():
        splits = {name: [i for i in ids if i not in moves] for name, ids in splits.items()}
        for image_id, split in moves.items():
            splits.setdefault(split, []).append(image_id)
    (folder / "split.json").write_text(json.dumps(splits))
    counts = ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())
    return f"{sum(map(len, splits.values()))} pictures, {count} captions: {counts}"


def read_json(file: Path, advice: str) -> Any:
    """Read a JSON file of a data set.

    Args:
        file: The file.
        advice: What to do when it is missing, for the message.

    Raises:
        Refusal: It is missing, or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{file} is missing; {advice}") from None
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
