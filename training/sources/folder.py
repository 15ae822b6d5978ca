"""The source `folder`: a folder of the user's pictures and a file with their captions.

Before anything is written, every line of the caption file is checked and every picture decoded,
and all faults are listed together. The pictures are copied: a later change of the folder does not
change the data set. The cost is the disk space of a second copy.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import Picture, check_target, write_index, writing_dataset
from training.data.image_decoding import examine_files
from training.sources.caption_files import Entry, read_captions
from training.sources.caption_text import print_changes
from training.sources.disk_space import check_space
from training.sources.faults import check_on_broken, counted, listed
from training.sources.settings import Folder
from training.sources.splits import DrawnSplits, KnownPictures, print_moves, split_fractions
from training.sources.tar_samples import PICTURE_EXTENSIONS

#: Names of the caption file, if the setting `folder.captions` gives none.
CAPTION_FILES = ("captions.csv", "captions.jsonl", "captions.json")


def prepare(settings: Folder) -> None:
    """Check the folder, then write its data set, in place of an older one.

    Raises:
        Refusal: A wrong setting, faults in the folder, or too little room on the disk.
    """
    root = _root(settings)
    fractions = split_fractions("folder.fractions", settings.fractions)
    check_target(settings.out)
    changes: Counter[str] = Counter()
    entries, faults = read_captions(_caption_file(root, settings.captions), changes)
    merged = _merge(root, entries, faults)
    _warn_of_uncaptioned(root, entries)
    drawn, known = DrawnSplits(fractions), KnownPictures()
    usable = _usable(root, merged, settings, drawn, known, faults)
    if faults and settings.on_broken == "stop":
        raise Refusal(
            f"{counted(faults)} in {root}; correct them, or leave out what they name with "
            f"folder.on_broken=skip:{listed(faults)}"
        )
    if not usable:
        raise Refusal(f"{root} has no picture that can be used:{listed(faults)}")
    if any(entry.split for entry in merged.values()):
        pictures = list(usable.values())
        _note_missing_splits(pictures)
    else:
        pictures = _filled(list(usable.values()), drawn, known, fractions)
    size = sum((root / name).stat().st_size for name in usable)
    with writing_dataset(settings.out) as folder:
        check_space({"folder.out": (Path(settings.out), size)})
        files = zip(usable, pictures, strict=True)
        bar = track(files, "copying", len(pictures), console=Console(stderr=True))
        for name, picture in bar:
            copy = folder / "images" / picture.file_name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copy)
        counts = write_index(folder, f"pictures of {root.name}", pictures)
    if faults:
        print(f"left out for {counted(faults)}:{listed(faults)}", file=sys.stderr)
    print_changes(changes)
    print(f"{settings.out}: {counts}")


def _root(settings: Folder) -> Path:
    """The folder of the setting `folder.path`, with links resolved.

    Raises:
        Refusal: It cannot be used, or `folder.on_broken` or `folder.out` cannot.
    """
    if settings.path is None:
        raise Refusal("folder.path is not set; give the folder of your pictures: folder.path=DIR")
    if not Path(settings.path).is_dir():
        raise Refusal(f"folder.path is {settings.path}, which is no folder")
    check_on_broken("folder.on_broken", settings.on_broken)
    root, out = Path(settings.path).resolve(), Path(settings.out).resolve()
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise Refusal(
            f"folder.out is {settings.out} and folder.path is {settings.path}; neither may lie in "
            "the other, as an older data set is replaced: give another folder.out"
        )
    if (root / "captions.json").exists() and (root / "split.json").exists():
        raise Refusal(
            f"{root} is a data set already (it has captions.json and split.json); use it as it "
            f"is: features.data={settings.path} train.data={settings.path}"
        )
    return root


def _caption_file(root: Path, name: str | None) -> Path:
    """The file of captions: the one of this name, or the only one of `CAPTION_FILES`.

    Raises:
        Refusal: There is none, or more than one.
    """
    names = CAPTION_FILES if name is None else (name,)
    there = [root / name for name in names if (root / name).is_file()]
    if len(there) != 1:
        wrong = "more than one of" if there else "no"
        raise Refusal(
            f"{root} has {wrong} {', '.join(names)}; give the file that holds the captions: "
            "folder.captions=FILE"
        )
    return there[0]


def _merge(root: Path, entries: Sequence[Entry], faults: list[str]) -> dict[str, Entry]:
    """The entries of each picture put together.

    Args:
        root: The folder, with links resolved.
        entries: Of the caption file.
        faults: One line for each fault is appended.

    Returns:
        Path of the picture within the folder -> one entry with all its captions.
    """
    with_split = any(entry.split for entry in entries)
    pictures: dict[str, Entry] = {}
    for entry in entries:
        try:
            name = _locate(root, entry.file)
            if with_split and entry.split is None:
                raise ValueError(f"{entry.file} has no split, though others have one")
            known = pictures.setdefault(name, dataclasses.replace(entry, captions=[]))
            if known.image_id != entry.image_id:
                raise ValueError(f"{entry.file} is already named by {known.where}")
            if known.split != entry.split:
                raise ValueError(
                    f"{entry.file} is in split {entry.split!r}, but in {known.split!r} in "
                    f"{known.where}"
                )
        except ValueError as error:
            faults.append(f"{entry.where}: {error}")
        else:
            known.captions += entry.captions
    return pictures


def _locate(root: Path, name: str) -> str:
    """Path of a picture within the folder, with slashes and with links resolved.

    Args:
        root: The folder.
        name: As in the caption file: a path within the folder, or within its folder `images`.

    Raises:
        ValueError: There is no such file, or it lies outside of the folder.
    """
    for folder in ("", "images"):
        try:
            file = (root / folder / name).resolve()
            exists = file.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, NUL
            raise ValueError(f"{ascii(name[:80])} cannot be the name of a file ({error})") from None
        if not file.is_relative_to(root):
            raise ValueError(f"{name} lies outside of {root}; copy it there")
        if exists:
            return file.relative_to(root).as_posix()
    raise ValueError(f"{name} is missing")


def _warn_of_uncaptioned(root: Path, entries: Sequence[Entry]) -> None:
    """Print the pictures of the folder that no line of the caption file names; not a fault."""
    named = {root / folder / entry.file for entry in entries for folder in ("", "images")}
    pictures = (file for file in root.rglob("*") if file.suffix.lower() in PICTURE_EXTENSIONS)
    unnamed = sorted(str(file.relative_to(root)) for file in pictures if file not in named)
    if unnamed:
        print(
            f"{len(unnamed)} pictures have no caption and stay out:{listed(unnamed)}",
            file=sys.stderr,
        )


def _usable(
    root: Path,
    entries: dict[str, Entry],
    settings: Folder,
    drawn: DrawnSplits,
    known: KnownPictures,
    faults: list[str],
) -> dict[str, Picture]:
    """The pictures that can be used, by path within the folder.

    The split is the one of the caption file. Where the file names none, it is drawn by the seed and
    the picture's name.

    Args:
        root: The folder.
        entries: Path of a picture within it -> its entry.
        settings: Of this source.
        drawn: The pictures whose split is drawn are added.
        known: All pictures are added.
        faults: One line is appended for each picture that cannot be decoded or that has the same
            bytes as a picture of another split.
    """
    results = examine_files(
        [root / name for name in entries], settings.max_pixels, settings.workers
    )
    bar = track(results, "checking", len(entries), console=Console(stderr=True))
    usable: dict[str, Picture] = {}
    for (name, entry), found in zip(entries.items(), bar, strict=True):
        key = f"{settings.seed}/{name}"
        split = entry.split or drawn.split(key)
        if found.fault:
            faults.append(f"{entry.where}: {found.fault}")
            continue
        try:
            known.check(found.sha256, split, f"{entry.file} ({entry.where})")
        except ValueError as error:
            faults.append(f"{entry.where}: {entry.file} {error}")
            continue
        image_id = len(usable) + 1 if entry.image_id is None else entry.image_id
        if entry.split is None:
            drawn.add(key, image_id, found.sha256)
        # The data set has a folder `images` itself: images/a.jpg becomes images/a.jpg there, and
        # not images/images/a.jpg, unless the user's folder has another a.jpg beside `images`.
        short = name.removeprefix("images/")
        file_name = name if short in entries else short
        usable[name] = Picture(image_id, file_name, entry.captions, split, sha256=found.sha256)
    return usable


def _filled(
    pictures: list[Picture],
    drawn: DrawnSplits,
    known: KnownPictures,
    fractions: dict[str, float],
) -> list[Picture]:
    """The pictures, some of them moved to splits to which none came.

    Raises:
        Refusal: There are too few pictures to give each split one.
    """
    moves = drawn.moves(known.repeated)
    if set(drawn.empty()) - set(moves.values()):
        raise Refusal(
            f"of {len(pictures)} pictures none came to {' and '.join(drawn.empty())} by "
            f"folder.fractions {fractions}, and there are too few to give each split one; add "
            "pictures, change folder.fractions, or give the split of each picture in the caption "
            "file"
        )
    print_moves({p.file_name: moves[p.image_id] for p in pictures if p.image_id in moves})
    return [dataclasses.replace(p, split=moves.get(p.image_id, p.split)) for p in pictures]


def _note_missing_splits(pictures: Sequence[Picture]) -> None:
    """Print which of the splits that training reads have no picture; not a fault."""
    used = {picture.split for picture in pictures}
    if missing := [split for split in ("train", "val") if split not in used]:
        print(
            f"note: no picture is in split {' or '.join(missing)}; the data set can be used for an "
            "evaluation, but training needs both",
            file=sys.stderr,
        )
