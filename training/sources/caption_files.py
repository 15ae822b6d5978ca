"""Caption files as people have them: CSV, JSON lines, or COCO captions.

    captions.csv    columns file (or file_name, image) and caption; split if there is one
    captions.jsonl  {"file": ..., "caption": ...} or {"file": ..., "captions": [...]}, "split"
    captions.json   COCO captions: {"images": [...], "annotations": [...]}, "split" in an image

In the first two, a picture may have several lines, one for each caption. Other columns and fields
are ignored. A fault in a line is listed with the number of the line; a file is refused only if it
cannot be read at all. A caption with a fault, or a repeated one, is left out without the others of
its line.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.data.splits import canonical_split
from training.sources.caption_text import clean_captions
from training.sources.csv_rows import csv_rows
from training.sources.faults import clean_text, listed, read_id, shortened

#: Names of the column or field that holds a picture's file name.
FILE_NAMES = ("file", "file_name", "image")


@dataclasses.dataclass
class Entry:
    """What one line of the file, or one image of a COCO file, holds about a picture.

    Attributes:
        where: The line or the image, for messages.
        file: File name of the picture, as written.
        captions: At least one; see `training.sources.caption_text.clean_captions`.
        split: The split (see `training.data.splits`), or None if none is given.
        image_id: The id, or None if the format has none.
    """

    where: str
    file: str
    captions: list[str]
    split: str | None = None
    image_id: int | None = None


def read_captions(file: Path, changes: Counter[str]) -> tuple[list[Entry], list[str]]:
    """Read a caption file.

    Args:
        file: The name ends in .csv, .jsonl or .json.
        changes: What was changed in captions -> number of captions; added to.

    Returns:
        The entries with a caption that has no fault, in the order of the file, and one line for
        each fault.

    Raises:
        Refusal: Another kind of file, not UTF-8, or without the columns or lists it must have.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_coco}
    if file.suffix.lower() not in readers:
        raise Refusal(f"{file} is not a caption file; give a .csv, .jsonl or .json file")
    text = _text(file)
    faults: list[str] = []
    return list(readers[file.suffix.lower()](file, text, faults, changes)), faults


def _text(file: Path) -> str:
    """The file as text, without the byte order mark that spreadsheets write.

    Raises:
        Refusal: It is not UTF-8; the message lists the lines.
    """
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    bad: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            bad.append(f"line {number}, byte {error.start + 1} is 0x{line[error.start]:02x}")
    raise Refusal(
        f"{file} is not UTF-8 on {len(bad)} lines; save it with the encoding UTF-8:{listed(bad)}"
    )


def _read_csv(file: Path, text: str, faults: list[str], changes: Counter[str]) -> Iterator[Entry]:
    header: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for number, row in csv_rows(io.StringIO(text, newline=""), FILE_NAMES):
        where = f"{file.name} line {number}"
        if isinstance(row, str):
            faults.append(f"{where}: {row}")
            continue
        if not header:
            header = _header(file, row)
            continue
        if len(row) != len(header):
            faults.append(
                f"{where}: has {len(row)} fields, the header has {len(header)}; a caption with a "
                'comma goes in quotes: "a boat, a tree"'
            )
            continue
        fields: dict[str, Any] = dict(zip(header, row, strict=True))
        yield from _entry(where, fields, [fields["caption"]], seen, faults, changes)
    if not header:
        raise Refusal(f"{file} is empty; its first line must be: file,caption")


def _header(file: Path, row: list[str]) -> list[str]:
    """Names of the columns in lower case; the column of file names is called `file`.

    Raises:
        Refusal: A column is missing, or is there twice.
    """
    names = [name.strip().lower() for name in row]
    names = ["file" if name in FILE_NAMES else name for name in names]
    for name in ("file", "caption", "split"):
        if names.count(name) > 1 or (name != "split" and name not in names):
            raise Refusal(
                f"{file} begins with the columns {row}; it must have one called file (or file_name "
                "or image) and one called caption, may have one called split, separated by commas"
            )
    return names


def _read_jsonl(file: Path, text: str, faults: list[str], changes: Counter[str]) -> Iterator[Entry]:
    seen: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file.name} line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{where}: is not JSON ({getattr(error, 'msg', error)})")
            continue
        if not isinstance(fields, dict):
            faults.append(f'{where}: must be like {{"file": "a.jpg", "caption": "a boat"}}')
            continue
        names = [name for name in FILE_NAMES if name in fields]
        given = [name for name in ("caption", "captions") if name in fields]
        if len(names) != 1 or len(given) != 1:
            faults.append(f"{where}: must have one file, and one of caption or captions")
            continue
        captions = fields[given[0]] if given == ["captions"] else [fields["caption"]]
        if not isinstance(captions, list) or not captions:
            faults.append(f"{where}: captions must be a list of at least one text")
            continue
        fields["file"] = fields[names[0]]
        yield from _entry(where, fields, captions, seen, faults, changes)


def _entry(
    where: str,
    fields: dict[str, Any],
    captions: list[Any],
    seen: dict[tuple[str, str], str],
    faults: list[str],
    changes: Counter[str],
) -> Iterator[Entry]:
    """The entry of one line, or none if the line has no caption without a fault.

    Args:
        where: The line, for messages.
        fields: Of the line; `file`, and `split` if there is one.
        captions: Of the line, not checked yet.
        seen: (file, caption) -> where it was read first; this line is added.
        faults: One line for each fault is appended.
        changes: What was changed in captions -> number of captions; added to.
    """
    try:
        name = clean_text(fields["file"], "file")
        split = canonical_split(clean_text(fields["split"], "split")) if "split" in fields else None
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return
    texts: list[str] = []
    for caption in captions:
        wrong: list[str] = []
        cleaned = clean_captions(caption, "caption", changes, wrong)
        faults += [f"{where}: {fault}" for fault in wrong]
        for text in cleaned:
            if text in texts:
                faults.append(f"{where}: has the same caption twice ({shortened(text)})")
            elif (name, text) in seen:
                faults.append(f"{where}: repeats file and caption of {seen[name, text]}")
            else:
                texts.append(text)
                seen[name, text] = where
    if texts:
        yield Entry(where, name, texts, split)


def _read_coco(file: Path, text: str, faults: list[str], changes: Counter[str]) -> Iterator[Entry]:
    try:
        coco = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
    lists = [coco.get(name) for name in ("images", "annotations")] if isinstance(coco, dict) else []
    if not lists or not all(isinstance(found, list) for found in lists):
        raise Refusal(f"{file} is not COCO captions: it must have lists `images` and `annotations`")
    entries: dict[int, Entry] = {}
    for number, image in enumerate(coco["images"]):
        where = f"{file.name} images[{number}]"
        try:
            image_id = read_id(image, "id")
            if image_id in entries:
                raise ValueError(f"id {image_id} is already used by {entries[image_id].where}")
            split = None
            if "split" in image:
                split = canonical_split(clean_text(image["split"], "split"))
            name = clean_text(image.get("file_name"), "file_name")
            entries[image_id] = Entry(where, name, [], split, image_id)
        except ValueError as error:
            faults.append(f"{where}: {error}")
    seen: dict[int, str] = {}
    for number, annotation in enumerate(coco["annotations"]):
        where = f"{file.name} annotations[{number}]"
        try:
            image_id = read_id(annotation, "image_id")
            if image_id not in entries:
                raise ValueError(f"image_id {image_id} is no image of the file")
            own = read_id(annotation, "id") if "id" in annotation else None
            if own is not None and seen.setdefault(own, where) != where:
                raise ValueError(f"id {own} is already used by {seen[own]}")
            wrong: list[str] = []
            captions = clean_captions(annotation.get("caption"), "caption", changes, wrong)
            faults += [f"{where}: {fault}" for fault in wrong]
            entries[image_id].captions.extend(captions)
        except ValueError as error:
            faults.append(f"{where}: {error}")
    for entry in entries.values():
        if entry.captions:
            yield entry
        else:
            faults.append(f"{entry.where}: {entry.file} has no caption")
