"""Reads the samples of one tar file (shard) in the WebDataset convention, and lists its faults.

The files of a sample are neighbours in the tar file and have the same name up to the first dot:

    000123.jpg                  the picture (.png, .webp and other formats as well), exactly one;
                                000123.input.jpg is a picture too
    000123.txt                  its captions, one a line
    000123.json                 without .txt, or if that is empty: {"caption": ...}, {"text": ...}
                                or {"captions": [...]}

Where every picture has a caption file of its whole name (boat.1.jpg and boat.1.txt), the dots are
part of the keys. Other files of a sample are ignored. Only headers and caption files are read, by
the standard library's `tarfile`, which gives the byte offset of each picture. Not the libraries
`webdataset` (gives no offsets, so pictures could not be read in place) and `wids` (gives offsets,
but misreads names of more than 100 characters and does not notice a shard that is cut short).
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.sources.captions.caption_text import clean_captions
from training.sources.captions.entry import Reading
from training.sources.faults import Faults, shortened
from training.sources.picture_extensions import PICTURE_EXTENSIONS

#: Extensions of caption files, in the order in which they are looked for.
CAPTION_EXTENSIONS = (".txt", ".json")
#: Names of captions in a JSON file.
CAPTION_NAMES = ("caption", "captions", "text")
NO_CAPTION = "samples whose caption is null"
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


def read_samples(file: Path, reading: Reading, picture: str | None = None) -> list[Sample]:
    """The samples of a shard that can be used, in the order of the shard.

    A caption with a fault, or a repeated one, is left out without the others of its sample. A
    sample whose caption is null is left out and counted.

    Args:
        file: An uncompressed tar file.
        reading: Faults and counts are added.
        picture: Extension of the picture where samples have several, such as `input.jpg`; None
            refuses several.
    """
    samples: dict[str, Sample] = {}
    seen: set[str] = set()
    for key, members in _grouped(file, reading.faults):
        try:
            if key in seen:
                raise ValueError("another sample of the shard has this key")
            of_captions: list[str] = []
            sample = _sample(key, members, of_captions, reading.changes, picture)
            for fault in of_captions:
                reading.faults.append(f"{file}: {printable(key)}: {fault}")
            if sample is None:
                reading.left_out[NO_CAPTION] += 1
            else:
                samples[key] = sample
        except ValueError as error:
            reading.faults.append(f"{file}: {printable(key)}: {error}")
        seen.add(key)
    return list(samples.values())


#: Name of a file without its folder, its entry in the tar file, its content if it is a caption.
_Entries = list[tuple[str, tarfile.TarInfo, bytes]]
#: Extension -> the entry of the tar file, and its content if it is a caption file.
_Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def _grouped(file: Path, faults: Faults) -> Iterator[tuple[str, _Members]]:
    """Key and files of each sample, in order."""
    for key, run in _runs(file, faults):
        for stem, entries in _parted(run).items():
            whole = f"{key.rpartition('/')[0]}/{stem}".lstrip("/") if stem else key
            members: _Members = {}
            for base, member, content in entries:
                kind = (base[len(stem) :] if stem else f".{base.partition('.')[2]}").lower()
                if kind in members:
                    faults.append(
                        f"{file}: {printable(whole)}: has two {printable(kind)}; the last is taken"
                    )
                members[kind] = (member, content)
            yield whole, members


def _parted(run: _Entries) -> dict[str, _Entries]:
    """The samples in a run of entries with the same name up to the first dot.

    Returns:
        Name up to the last dot -> entries, if a picture with dots in that name has a caption file
        of it. Otherwise "" -> all entries.
    """
    stems: dict[str, _Entries] = {}
    for entry in run:
        stems.setdefault(entry[0].rpartition(".")[0], []).append(entry)
    has = {
        stem: [
            any(base.lower().endswith(extensions) for base, *_ in entries)
            for extensions in (PICTURE_EXTENSIONS, CAPTION_EXTENSIONS)
        ]
        for stem, entries in stems.items()
    }
    if any("." in stem and all(kinds) for stem, kinds in has.items()):
        return {stem: entries for stem, entries in stems.items() if any(has[stem])}
    return {"": run}


def _runs(file: Path, faults: Faults) -> Iterator[tuple[str, _Entries]]:
    """Neighbouring entries with the same name up to the first dot, and that name, in order."""
    last, data_start = "", 0
    run: _Entries = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                # A header with a negative size would lead back and be read again without end.
                if member.size < 0 or member.offset < data_start:
                    raise tarfile.ReadError(f"an entry at byte {member.offset} leads back")
                data_start = member.offset_data
                folder, _, base = member.name.rpartition("/")
                stem = base.partition(".")[0]
                if not member.isreg() or not stem:  # folders, links, hidden files
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if key != last and run:
                    yield last, run
                    run = []
                last = key
                run.append((base, member, _content(tar, member)))
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
    if run:
        yield last, run


def printable(name: str) -> str:
    """A name out of a tar file for a message: escaped where needed, at most `MAX_NAME` long."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a caption file; empty for other files and for one that is too large."""
    if not member.name.lower().endswith(CAPTION_EXTENSIONS) or member.size > MAX_CAPTION:
        return b""
    opened = tar.extractfile(member)
    return opened.read() if opened else b""


def _sample(
    key: str,
    members: _Members,
    of_captions: list[str],
    changes: Counter[str],
    chosen: str | None,
) -> Sample | None:
    """The sample that these files make; None if its caption is null.

    Args:
        key: Of the sample.
        members: Its files.
        of_captions: One line for each caption that is left out is appended.
        changes: What was changed in captions -> number of captions; added to.
        chosen: Extension of the picture, or None.

    Raises:
        ValueError: They do not make one; the message gives the fault.
    """
    picture = _picture(members, chosen)
    texts = _texts(members)
    if texts is None:
        return None
    captions: list[str] = []
    for value in texts:
        for caption in clean_captions(value, "caption", changes, of_captions):
            if caption in captions:
                of_captions.append(f"has the same caption twice ({shortened(caption)})")
            else:
                captions.append(caption)
    if not captions:
        raise ValueError("; ".join(of_captions))
    return Sample(key, picture.name, picture.offset_data, picture.size, captions)


def _picture(members: _Members, chosen: str | None) -> tarfile.TarInfo:
    """The picture of a sample.

    Raises:
        ValueError: There is none or more than one, or it cannot be read in place.
    """
    if chosen is None:
        kinds = [kind for kind in members if kind.endswith(PICTURE_EXTENSIONS)]
    else:
        kinds = [kind for kind in members if kind == f".{chosen.lstrip('.').lower()}"]
    if len(kinds) != 1:
        of = f" ({', '.join(printable(kind) for kind in kinds)})" if kinds else ""
        choose = "; choose with webdataset.picture=EXTENSION" if len(set(kinds)) > 1 else ""
        raise ValueError(f"has {len(kinds) or 'no'} pictures{of}; it must have one{choose}")
    picture, _ = members[kinds[0]]
    if picture.issparse():
        raise ValueError(f"{kinds[0]} is stored in pieces; pack it again without --sparse")
    return picture


def _texts(members: _Members) -> list[Any] | None:
    """The captions of a sample, unchecked; None if they are null, in JSON.

    Raises:
        ValueError: There is no file of them, or it cannot be read.
    """
    given = [extension for extension in CAPTION_EXTENSIONS if extension in members]
    if not given:
        raise ValueError("has no caption; put it in a .txt or .json of the same name")
    if given[0] == ".txt":
        lines = _text(members, ".txt").replace("\r", "\n").split("\n")
        texts: list[Any] = [line for line in lines if line.strip()]
        if texts or ".json" not in members:
            return texts or [""]
        # img2dataset writes an empty .txt where the table of addresses has no caption.
        return _captions_of_json(_text(members, ".json"), empty=True)
    return _captions_of_json(_text(members, ".json"))


def _text(members: _Members, kind: str) -> str:
    member, content = members[kind]
    if member.size > MAX_CAPTION:
        raise ValueError(f"{kind} has {member.size} bytes, {MAX_CAPTION} are allowed")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{kind} is not UTF-8 (byte {error.start + 1})") from None


def _captions_of_json(text: str, empty: bool = False) -> list[Any] | None:
    """The captions in a JSON object, unchecked; None if they are null.

    Args:
        text: The object.
        empty: Whether an empty caption, or none at all, counts as null.

    Raises:
        ValueError: Not JSON, not an object, or not exactly one of the names of captions.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f".json is not JSON ({getattr(error, 'msg', error)})") from None
    names = [name for name in CAPTION_NAMES if isinstance(fields, dict) and name in fields]
    given = [name for name in names if fields[name] is not None]
    if names and not given:
        return None
    if empty and (not given or (len(given) == 1 and fields[given[0]] in ("", []))):
        return None
    if len(given) != 1:
        raise ValueError(".json must have one of caption, captions or text")
    value = fields[given[0]]
    captions = value if isinstance(value, list) or given == ["captions"] else [value]
    if not isinstance(captions, list) or not captions:
        raise ValueError("captions must be a list of at least one text")
    return captions
