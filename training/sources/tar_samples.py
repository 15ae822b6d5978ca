"""Reads the samples of one tar file (shard) in the WebDataset convention, and lists its faults.

The files of a sample are neighbours in the tar file and have the same name up to the first dot:

    000123.jpg                  the picture (.png, .webp and other formats as well), exactly one
    000123.txt                  its captions, one a line
    000123.json                 without .txt: {"caption": ...} or {"captions": [...]}

Other files of a sample are ignored. Only headers and caption files are read, by the standard
library's `tarfile`, which gives the byte offset of each picture. Not the libraries `webdataset`
(gives no offsets, so pictures could not be read in place) and `wids` (gives offsets, but misreads
names of more than 100 characters and does not notice a shard that is cut short).
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.sources.caption_text import clean_captions
from training.sources.faults import shortened

#: How the names of picture files end, in lower case.
PICTURE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
#: The largest caption file in bytes.
MAX_CAPTION = 1_000_000
#: Characters of a name that a message shows.
MAX_NAME = 200


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture and its captions.

    Attributes:
        key: The name that its files share; unique in the shard.
        name: Name of the picture in the tar file.
        offset: Position of the picture's first byte in the tar file.
        size: Of the picture, in bytes.
        captions: At least one; see `training.sources.caption_text.clean_captions`.
    """

    key: str
    name: str
    offset: int
    size: int
    captions: list[str]


def read_samples(file: Path, faults: list[str], changes: Counter[str]) -> list[Sample]:
    """The samples of a shard that can be used, in the order of the shard.

    A caption with a fault, or a repeated one, is left out without the others of its sample.

    Args:
        file: An uncompressed tar file.
        faults: One line for each fault is appended.
        changes: What was changed in captions -> number of captions; added to.
    """
    samples: dict[str, Sample] = {}
    seen: set[str] = set()
    for key, members in _grouped(file, faults):
        try:
            if key in seen:
                raise ValueError("another sample of the shard has this key")
            of_captions: list[str] = []
            samples[key] = _sample(key, members, of_captions, changes)
            faults += [f"{file}: {printable(key)}: {fault}" for fault in of_captions]
        except ValueError as error:
            faults.append(f"{file}: {printable(key)}: {error}")
        seen.add(key)
    return list(samples.values())


#: Extension -> the entry of the tar file, and its content if it is a caption file.
_Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def _grouped(file: Path, faults: list[str]) -> Iterator[tuple[str, _Members]]:
    """Key and files of each run of neighbouring entries with the same key, in order."""
    last, data_start = "", 0
    members: _Members = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                # A header with a negative size would lead back and be read again without end.
                if member.size < 0 or member.offset < data_start:
                    raise tarfile.ReadError(f"an entry at byte {member.offset} leads back")
                data_start = member.offset_data
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if not member.isreg() or not stem:  # folders, links, hidden files
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if key != last and members:
                    yield last, members
                    members = {}
                last = key
                kind = "." + extension.lower()
                if kind in members:
                    faults.append(
                        f"{file}: {printable(key)}: has two {printable(kind)}; the last is taken"
                    )
                members[kind] = (member, _content(tar, member))
            assert tar.fileobj
            tar.fileobj.seek(tar.offset)
            # `tarfile` stops without an error at a damaged or missing header after the first.
            # A tar file that is complete ends with blocks of zeros.
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end is marked at byte {tar.offset}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        after = f" after {printable(last)}" if last else ""
        faults.append(
            f"{file}: cut short, damaged or compressed{after} ({error}); give a whole .tar"
        )
    if members:
        yield last, members


def printable(name: str) -> str:
    """A name out of a tar file for a message: escaped where needed, at most `MAX_NAME` long."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a caption file; empty for other files and for one that is too large."""
    if not member.name.lower().endswith((".txt", ".json")) or member.size > MAX_CAPTION:
        return b""
    opened = tar.extractfile(member)
    return opened.read() if opened else b""


def _sample(key: str, members: _Members, of_captions: list[str], changes: Counter[str]) -> Sample:
    """The sample that these files make.

    Args:
        key: Of the sample.
        members: Its files.
        of_captions: One line for each caption that is left out is appended.
        changes: What was changed in captions -> number of captions; added to.

    Raises:
        ValueError: They do not make one; the message gives the fault.
    """
    pictures = [extension for extension in members if extension in PICTURE_EXTENSIONS]
    if len(pictures) != 1:
        raise ValueError(f"has {len(pictures) or 'no'} pictures; it must have one")
    given = [extension for extension in (".txt", ".json") if extension in members]
    if not given:
        raise ValueError("has no caption; put it in a .txt or .json of the same name")
    member, content = members[given[0]]
    if member.size > MAX_CAPTION:
        raise ValueError(f"{given[0]} has {member.size} bytes, {MAX_CAPTION} are allowed")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{given[0]} is not UTF-8 (byte {error.start + 1})") from None
    if given[0] == ".txt":
        lines = text.replace("\r", "\n").split("\n")
        texts: list[Any] = [line for line in lines if line.strip()] or [""]
    else:
        texts = _captions_of_json(text)
    captions: list[str] = []
    for value in texts:
        for caption in clean_captions(value, "caption", changes, of_captions):
            if caption in captions:
                of_captions.append(f"has the same caption twice ({shortened(caption)})")
            else:
                captions.append(caption)
    if not captions:
        raise ValueError("; ".join(of_captions))
    picture, _ = members[pictures[0]]
    if picture.issparse():
        raise ValueError(f"{pictures[0]} is stored in pieces; pack it again without --sparse")
    return Sample(key, picture.name, picture.offset_data, picture.size, captions)


def _captions_of_json(text: str) -> list[Any]:
    """The value of `caption` (in a list) or `captions` of a JSON object; its items are unchecked.

    Raises:
        ValueError: Not JSON, not an object, or not exactly one of the two.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f".json is not JSON ({getattr(error, 'msg', error)})") from None
    given = [
        name for name in ("caption", "captions") if isinstance(fields, dict) and name in fields
    ]
    if len(given) != 1:
        raise ValueError(".json must have one of caption or captions")
    captions = [fields["caption"]] if given == ["caption"] else fields["captions"]
    if not isinstance(captions, list) or not captions:
        raise ValueError("captions must be a list of at least one text")
    return captions
