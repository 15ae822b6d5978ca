"""Captions in a text table: CSV as it comes, lines of JSON, and the token files of Flickr.

    captions.csv, metadata.csv     columns of file names and captions (see `columns`), perhaps split
    captions.jsonl, metadata.jsonl one object a line with the same names; a caption may be a list
    captions.txt (Flickr8k)        image,caption
    results.csv (Flickr30k)        image_name| comment_number| comment
    *.token, *.token.txt           NAME.jpg#0<tab>caption, without a header

The separator is that of the header: a comma, a semicolon, a tab or `|`, or what a first line
`sep=;` says. A picture may have several lines, one for each caption. Other columns are ignored. A
fault in a line is listed with the number of the line.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.sources.captions.columns import (
    FILE,
    NUMBER,
    OTHER_FILE,
    USUAL,
    Columns,
    Named,
    find_columns,
)
from training.sources.captions.csv_rows import csv_rows
from training.sources.captions.entry import Entry, Reading
from training.sources.captions.text_lines import text_lines
from training.sources.picture_extensions import PICTURE_EXTENSIONS

SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_TOKEN = re.compile(r"([^\t]+)#\d+\t")


@dataclasses.dataclass(frozen=True)
class Header:
    """How a table begins.

    Attributes:
        separator: Of the fields.
        skipped: Lines before the header.
        names: Of the columns, in lower case; None if the table has no header and each line is
            a file name and a caption.
        token: Whether the number of the caption follows the file name: `a.jpg#0`.
    """

    separator: str
    skipped: int
    names: list[str] | None
    token: bool = False


def read_header(file: Path, given: Named = USUAL) -> Header:
    """How a table begins; the separator is the one that gives known columns, else a comma."""
    lines = list(itertools.islice(text_lines(file), 2))
    skipped = 0
    separators: tuple[str, ...] = SEPARATORS
    if lines and (said := _SEPARATOR_LINE.fullmatch(lines[0])):
        skipped, separators = 1, (said[1],)
    if len(lines) <= skipped:
        return Header(",", skipped, [])
    line = lines[skipped].rstrip("\r\n")
    if _TOKEN.match(line):
        return Header("\t", skipped, None, token=True)
    for separator in separators:
        names = _names(line, separator)
        try:
            find_columns(names, given)
        except ValueError:
            continue
        return Header(separator, skipped, names)
    for separator in separators:
        fields = _names(line, separator)
        if len(fields) == 2 and fields[0].endswith(PICTURE_EXTENSIONS):
            return Header(separator, skipped, None)
    likely = max(separators, key=lambda separator: len(_names(line, separator)))
    return Header(likely, skipped, _names(line, likely))


def _names(line: str, separator: str) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        row = line.split(separator)
    return [name.strip().lower() for name in row]


def read_table(
    file: Path, reading: Reading, given: Named = USUAL, repeats: bool = False
) -> Iterator[Entry]:
    """The entries of a CSV file or its kin.

    Raises:
        Refusal: It is empty, is not UTF-8, or lacks a column.
    """
    header = read_header(file, given)
    lines = itertools.islice(text_lines(file), header.skipped, None)
    known = (*((given.file,) if given.file else ()), *FILE, *OTHER_FILE, *NUMBER)
    rows = csv_rows(lines, known, header.separator, first=header.skipped + 1)
    width, columns, names = 2, Columns("file", ("caption",), None), ["file", "caption"]
    begun, label = header.names is None, reading.name(file)
    for number, row in rows:
        where = f"{label} line {number}"
        if isinstance(row, str):
            reading.faults.append(f"{where}: {row}")
            continue
        if not begun:
            names = [name.strip().lower() for name in row]
            columns, width, begun = _columns(file, row, names, given), len(row), True
            continue
        if len(row) != width:
            reading.faults.append(
                f"{where}: has {len(row)} fields, the header has {width}; a caption with a comma "
                'goes in quotes: "a boat, a tree"'
                if header.separator in ",;"
                else f"{where}: has {len(row)} fields between {header.separator!r}, not {width}"
            )
            continue
        fields = dict(zip(names, row, strict=True))
        name = fields[columns.file]
        captions: list[Any] = [fields[column] for column in columns.captions]
        if len(captions) > 1:  # of caption_0, caption_1, ... some may be empty
            captions = [text for text in captions if text.strip()] or [""]
        if header.token:
            name = name.rpartition("#")[0] or name
        split = fields[columns.split] if columns.split else None
        if entry := reading.entry(where, name, captions, split, repeats):
            yield entry
    if not begun:
        raise Refusal(f"{file} is empty; its first line must be: file,caption")


def _columns(file: Path, row: list[str], names: list[str], given: Named) -> Columns:
    """The columns of a header.

    Raises:
        Refusal: One is missing, or there are two to choose from.
    """
    try:
        return find_columns(names, given)
    except ValueError as error:
        advice = ""
        if {"url", "image_url"} & set(names) or re.search(r"https?://", " ".join(row)):
            advice = "; addresses of pictures must be downloaded first, as with img2dataset"
        raise Refusal(
            f"{file} begins with the columns {row}; it must have one called file (or file_name or "
            f"image) and one called caption ({error}); name others with folder.file_column=NAME "
            f"folder.caption_column=NAME{advice}"
        ) from None


def read_json_lines(
    file: Path, reading: Reading, given: Named = USUAL, repeats: bool = False
) -> Iterator[Entry]:
    """The entries of a file with one JSON object in each line.

    Raises:
        Refusal: It is not UTF-8.
    """
    label = reading.name(file)
    for number, line in enumerate(text_lines(file, "\n"), start=1):
        if not line.strip():
            continue
        where = f"{label} line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            reading.faults.append(f"{where}: is not JSON ({getattr(error, 'msg', error)})")
            continue
        if entry := object_entry(where, fields, reading, given, repeats):
            yield entry


def object_entry(
    where: str, fields: Any, reading: Reading, given: Named = USUAL, repeats: bool = False
) -> Entry | None:
    """The entry of one JSON object with a file name and a caption, or a list of captions.

    Args:
        where: The object, for messages.
        fields: The object, unchecked.
        reading: A fault is added to it.
        given: Names of fields.
        repeats: Whether the same caption may be there twice.
    """
    if not isinstance(fields, dict):
        reading.faults.append(f'{where}: must be like {{"file": "a.jpg", "caption": "a boat"}}')
        return None
    low = {name.strip().lower(): value for name, value in fields.items()}
    try:
        columns = find_columns(tuple(low), given)
    except ValueError as error:
        reading.faults.append(
            f"{where}: must have one file, and one of caption or captions ({error})"
        )
        return None
    values = [low[column] for column in columns.captions]
    captions = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    if not captions:
        reading.faults.append(f"{where}: captions must be a list of at least one text")
        return None
    name = low[columns.file]
    if columns.file in NUMBER and isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    split = low[columns.split] if columns.split else None
    return reading.entry(where, name, captions, split, repeats)
