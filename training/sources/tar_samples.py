"""Samples of one tar shard in the WebDataset convention, and everything that is wrong with it.

Files of a sample stand one behind the other and are called the same up to the first dot:

    000123.jpg                  the picture (.png, .webp and other formats as well), exactly one
    000123.txt                  its caption
    000123.json                 without .txt: {"caption": ...} or {"captions": [...]}

Other files of a sample are passed over. The standard library's `tarfile` reads the headers and
says where each picture lies, which is all that is needed here; pictures are not read.
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.sources.fields import clean_text

#: How the names of picture files end.
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: Bytes of a caption file at most; a larger one is no caption.
MAX_CAPTION = 1_000_000
#: Letters of a name that are printed.
SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture and what was said of it.

    Attributes:
        key: The name its files share; no other sample of the shard has it.
        name: Of the picture in the tar file.
        offset: First byte of the picture there.
        size: Its bytes.
        captions: At least one, white space made single spaces.
    """

    key: str
    name: str
    offset: int
    size: int
    captions: list[str]


def read_samples(file: Path, faults: list[str]) -> list[Sample]:
    """The sound samples of a shard in its order; what is wrong with it joins the faults."""
    samples: dict[str, Sample] = {}
    seen: set[str] = set()
    for key, members in _grouped(file, faults):
        try:
            if key in seen:
                raise ValueError("another sample of the shard has this key")
            samples[key] = _sample(key, members)
        except ValueError as error:
            faults.append(f"{file}: {shown(key)}: {error}")
        seen.add(key)
    return list(samples.values())


#: Extension -> the entry of the tar file, with its content if that is a caption.
_Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def _grouped(file: Path, faults: list[str]) -> Iterator[tuple[str, _Members]]:
    """Neighbouring files of the same key, in order."""
    last, members, behind = "", {}, 0
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.size < 0 or member.offset < behind:
                    raise tarfile.ReadError(f"an entry at byte {member.offset} leads back")
                behind = member.offset_data
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
                    faults.append(f"{file}: {shown(key)}: has two {shown(kind)}; the last is taken")
                members[kind] = (member, _content(tar, member))
            assert tar.fileobj
            tar.fileobj.seek(tar.offset)
            # tarfile takes a damaged or missing header behind the first for the end.
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end is marked at byte {tar.offset}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        after = f" behind {shown(last)}" if last else ""
        faults.append(
            f"{file}: cut short, damaged or compressed{after} ({error}); give a whole .tar"
        )
    if members:
        yield last, members


def shown(name: str) -> str:
    """A name as it may be printed, whatever a tar file says it is."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a caption file; none of others."""
    if not member.name.lower().endswith((".txt", ".json")) or member.size > MAX_CAPTION:
        return b""
    opened = tar.extractfile(member)
    return opened.read() if opened else b""


def _sample(key: str, members: _Members) -> Sample:
    """The sample of these files.

    Raises:
        ValueError: What is wrong with it.
    """
    pictures = [extension for extension in members if extension in PICTURES]
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
    said = [text] if given[0] == ".txt" else _said(text)
    captions = [clean_text(caption, "caption") for caption in said]
    if len(set(captions)) < len(captions):
        raise ValueError("has the same caption twice")
    picture, _ = members[pictures[0]]
    if picture.issparse():
        raise ValueError(f"{pictures[0]} is stored in pieces; pack it again without --sparse")
    return Sample(key, picture.name, picture.offset_data, picture.size, captions)


def _said(text: str) -> list[Any]:
    """What stands in a .json as caption or captions."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f".json is not JSON ({getattr(error, 'msg', error)})") from None
    given = [
        name for name in ("caption", "captions") if isinstance(fields, dict) and name in fields
    ]
    if len(given) != 1:
        raise ValueError(".json must have one of caption or captions")
    said = [fields["caption"]] if given == ["caption"] else fields["captions"]
    if not isinstance(said, list) or not said:
        raise ValueError("captions must be a list of at least one text")
    return said
