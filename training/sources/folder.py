"""The source that is a folder of one's own: pictures and a file with their captions.

Everything in it is looked at, every picture decoded, before anything is written; all faults are
listed together. The pictures are copied, so the data set takes their room on the disk a second
time, and neither a later change in the folder nor one in the data set reaches the other.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import Picture, check_target, write_index, writing_dataset
from training.data.image_decoding import undecodable
from training.sources.caption_files import Entry, read_captions
from training.sources.disk_space import check_space
from training.sources.faults import check_on_broken, counted, listed
from training.sources.settings import Folder
from training.sources.splits import check_shares, drawn_split
from training.sources.tar_samples import PICTURES

CAPTION_FILES = ("captions.csv", "captions.jsonl", "captions.json")


def prepare(settings: Folder) -> None:
    """Check the folder, then make its data set in place of an older one.

    Raises:
        Refusal: Settings that make no data set, faults in the folder, or a full disk.
    """
    root = _root(settings)
    check_target(settings.out)
    entries, faults = read_captions(_caption_file(root, settings.captions))
    found = _merge(root, entries, faults)
    _warn_of_uncaptioned(root, entries)
    sound = _decodable(root, found, settings, faults)
    if faults and settings.on_broken == "stop":
        raise Refusal(
            f"{counted(faults)} in {root}; mend them, or leave out what they name with "
            f"folder.on_broken=skip:{listed(faults)}"
        )
    if not sound:
        raise Refusal(f"{root} has no picture that can be used:{listed(faults)}")
    pictures = _split(sound, settings)
    size = sum((root / name).stat().st_size for name in sound)
    with writing_dataset(settings.out) as folder:
        check_space({"folder.out": (Path(settings.out), size)})
        files = zip(sound, pictures, strict=True)
        bar = track(files, "copying", len(pictures), console=Console(stderr=True))
        for name, picture in bar:
            copy = folder / "images" / picture.file_name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copy)
        counts = write_index(folder, f"pictures of {root.name}", pictures)
    if faults:
        print(f"left out for {counted(faults)}:{listed(faults)}", file=sys.stderr)
    print(f"{settings.out}: {counts}")


def _root(settings: Folder) -> Path:
    """The folder, links resolved; settings that cannot be meant are refused."""
    if settings.path is None:
        raise Refusal("folder.path is not set; say where your pictures are: folder.path=DIR")
    if not Path(settings.path).is_dir():
        raise Refusal(f"folder.path is {settings.path}, which is no folder")
    check_on_broken("folder.on_broken", settings.on_broken)
    check_shares("folder.fractions", dataclasses.asdict(settings.fractions))
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
    names = CAPTION_FILES if name is None else (name,)
    there = [root / name for name in names if (root / name).is_file()]
    if len(there) != 1:
        wrong = "more than one of" if there else "no"
        raise Refusal(
            f"{root} has {wrong} {', '.join(names)}; say which file holds the captions: "
            "folder.captions=FILE"
        )
    return there[0]


def _merge(root: Path, entries: Sequence[Entry], faults: list[str]) -> dict[str, Entry]:
    """Picture, as path within the folder -> all that was said of it."""
    with_split = any(entry.split for entry in entries)
    pictures: dict[str, Entry] = {}
    for entry in entries:
        try:
            name = _locate(root, entry.file)
            if with_split and entry.split is None:
                raise ValueError(f"{entry.file} has no split, though others have one")
            known = pictures.setdefault(name, dataclasses.replace(entry, captions=[]))
            if known.image_id != entry.image_id:
                raise ValueError(f"{entry.file} stands in {known.where} already")
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
    """Where in the folder (or in `images/` of it) a picture is, with slashes, links resolved.

    Raises:
        ValueError: It is not there, or not in the folder.
    """
    for place in ("", "images"):
        try:
            file = (root / place / name).resolve()
            there = file.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, NUL
            raise ValueError(f"{ascii(name[:80])} cannot be the name of a file ({error})") from None
        if not file.is_relative_to(root):
            raise ValueError(f"{name} lies outside of {root}; copy it there")
        if there:
            return file.relative_to(root).as_posix()
    raise ValueError(f"{name} is missing")


def _warn_of_uncaptioned(root: Path, entries: Sequence[Entry]) -> None:
    """Say which pictures of the folder no line names; they are no fault."""
    named = {root / place / entry.file for entry in entries for place in ("", "images")}
    there = (file for file in root.rglob("*") if file.suffix.lower() in PICTURES)
    left = sorted(str(file.relative_to(root)) for file in there if file not in named)
    if left:
        print(f"{len(left)} pictures have no caption and stay out:{listed(left)}", file=sys.stderr)


def _decodable(
    root: Path, pictures: dict[str, Entry], settings: Folder, faults: list[str]
) -> dict[str, Entry]:
    """The pictures that can be decoded; the others join the faults."""
    files = [root / name for name in pictures]
    found = undecodable(files, settings.max_pixels, settings.workers)
    bar = track(found, "checking", len(files), console=Console(stderr=True))
    sound = {}
    for (name, entry), fault in zip(pictures.items(), bar, strict=True):
        if fault:
            faults.append(f"{entry.where}: {fault}")
        else:
            sound[name] = entry
    return sound


def _split(entries: dict[str, Entry], settings: Folder) -> list[Picture]:
    """Each picture with its split: the one it says, or one that follows from its name alone.

    So pictures that join the folder later move none of the others. Those under `images/` do
    without that folder, which the data set has itself, unless another picture has the name then.
    """
    shares = dataclasses.asdict(settings.fractions)
    pictures = []
    for number, (name, entry) in enumerate(entries.items(), start=1):
        split = entry.split or drawn_split(f"{settings.seed}/{name}", shares)
        image_id = number if entry.image_id is None else entry.image_id
        short = name.removeprefix("images/")
        file_name = name if short in entries else short
        pictures.append(Picture(image_id, file_name, entry.captions, split))
    given = {picture.split for picture in pictures}
    empty = [split for split, share in shares.items() if share and split not in given]
    if empty and not any(entry.split for entry in entries.values()):
        raise Refusal(
            f"of {len(pictures)} pictures none came to {' and '.join(empty)} by folder.fractions "
            f"{shares}; add pictures, change folder.seed or folder.fractions, or say the split of "
            "each picture in the caption file"
        )
    return pictures
