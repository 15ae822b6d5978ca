"""Recognises in which of the forms that are in use the captions of a folder are.

A form is told by names (metadata.csv, state.json) or by the first entries of a file. Where a folder
has captions in two forms, or in two files of a form whose names tell no splits, the user chooses.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

from model.refusal import Refusal
from training.data.splits import NAMES, canonical_split
from training.data.stored_picture import arrow, stored_schema
from training.sources.captions import stored_tables, table, text_beside
from training.sources.captions.columns import USUAL, Named, find_columns
from training.sources.captions.forms import WORDS, Form, Part
from training.sources.captions.json_form import json_form
from training.sources.captions.text_lines import text_lines
from training.sources.faults import listed
from training.sources.picture_extensions import PICTURE_EXTENSIONS

#: Names of the caption file that are looked for first.
CAPTION_FILES = ("captions.csv", "captions.jsonl", "captions.json")
#: Names of the caption file of a Hugging Face image folder.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
#: Extensions of files that may hold captions.
TEXT = (".csv", ".tsv", ".txt", ".token")
JSON = (".json", ".jsonl")
STORED = (".parquet", ".arrow")
#: Folders below the one that is looked at in which caption files are searched.
DEPTH = 2
_LISTS = re.compile(r"(train|dev|val|test)_?images\.txt", re.IGNORECASE)


def recognise(
    root: Path,
    captions: str | None = None,
    given: Named = USUAL,
    extension: str | None = None,
    each_line: bool = False,
) -> Form:
    """The form of the captions of a folder.

    Args:
        root: The folder, with links resolved.
        captions: Name of the caption file within it, or a pattern such as `annotations/*.json`;
            None looks for it.
        given: Names of columns.
        extension: Of text files beside the pictures; None looks for it.
        each_line: Whether each line of those is a caption.

    Raises:
        Refusal: Nothing is recognised, or more than one form is.
    """
    form = Form("beside", root, (), given, each_line=each_line)
    if captions is not None:
        files = sorted(root.glob(captions)) if "*" in captions else [root / captions]
        files = [file for file in files if file.is_file()]
        if not files:
            raise Refusal(
                f"{root} has no {captions}; give the file that holds the captions: "
                "folder.captions=FILE"
            )
        return _of_files(form, files, chosen=True)
    if extension is None:
        there = [root / name for name in CAPTION_FILES if (root / name).is_file()]
        if len(there) > 1:
            raise Refusal(
                f"{root} has more than one of {', '.join(CAPTION_FILES)}; give the file that holds "
                "the captions: folder.captions=FILE"
            )
        if there:
            return _of_files(form, there, chosen=True)
        if found := _hugging_face(form) or _searched(form):
            return found
    if found := _beside(form, extension):
        return found
    raise _nothing(root, extension)


def _nothing(root: Path, extension: str | None) -> Refusal:
    if extension is not None:
        return Refusal(f"{root} has no picture with a text file NAME.{extension.lstrip('.')}")
    if any(_candidates(root, STORED)):
        arrow("")  # refuses if pyarrow is missing
    if any(root.glob("*.tar")):
        return Refusal(
            f"{root} holds tar files; give them as shards: prepare.source=webdataset "
            f"webdataset.shards={root}"
        )
    return Refusal(
        f"{root} has no {', '.join(CAPTION_FILES)} and no captions in another form that is known "
        "(docs/data-sets.md lists them); give the file that holds the captions: "
        "folder.captions=FILE"
    )


def _of_files(form: Form, files: list[Path], chosen: bool) -> Form:
    """The form of these files.

    Raises:
        Refusal: They have different forms, or one is none.
    """
    keys = {file: _key(file, form.given, chosen) for file in files}
    if unknown := [file for file, key in keys.items() if key is None]:
        raise Refusal(
            f"{unknown[0]} is not a caption file; give a .csv, .jsonl or .json file, or another of "
            "docs/data-sets.md"
        )
    if len(set(keys.values())) > 1:
        raise _ambiguous(form.root, keys)
    return _with_splits(form, str(keys[files[0]]), files)


def _ambiguous(root: Path, keys: dict[Path, str | None]) -> Refusal:
    lines = [f"{file.relative_to(root)}: {WORDS[str(key)]}" for file, key in keys.items()]
    return Refusal(
        f"{root} has captions in {len(lines)} files and it is not clear which to take; choose with "
        f"folder.captions=FILE, or FILES with a * in the name:{listed(lines)}"
    )


def _with_splits(form: Form, key: str, files: list[Path]) -> Form:
    """The form of files, with the splits that their names tell if they tell two or more."""
    splits = [split_in_name(os.path.relpath(file, form.root)) for file in files]
    told = len(set(splits) - {None}) > 1 and None not in splits
    parts = tuple(
        Part(file, split if told else None) for file, split in zip(files, splits, strict=True)
    )
    lists = _find_split_lists(form.root) if key in ("flickr8k", "flickr30k", "token") else {}
    return dataclasses.replace(form, key=key, parts=parts, split_lists=lists)


def split_in_name(path: str) -> str | None:
    """The split that the names of a file and its folders tell, such as `captions_train2014.json`.

    Returns:
        None if they tell none; the nearest to the end if they tell two.
    """
    known = {word for words in NAMES.values() for word in words}
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", path)]
    told = [canonical_split(word) for word in words if word in known]
    return told[-1] if told else None


def _find_split_lists(root: Path) -> dict[str, Path]:
    """Flickr8k's lists: Flickr_8k.trainImages.txt and its kin, by split."""
    found = {}
    for file in _candidates(root, (".txt",)):
        if told := _LISTS.search(file.name):
            found[canonical_split(told[1])] = file
    return found if len(found) > 1 else {}


def _key(file: Path, given: Named, chosen: bool = False) -> str | None:
    """The form of a file, None if it is no caption file.

    Args:
        file: The file.
        given: Names of columns.
        chosen: Whether the user says that it is one. Then a table without known columns is still
            a table, so that reading it names what is missing.
    """
    suffix = file.suffix.lower()
    if file.name in METADATA:
        return "metadata"
    if suffix in STORED:
        return _key_of_stored(file, given, chosen)
    if suffix == ".jsonl":
        return "jsonl" if chosen or _has_fields(file, given) else None
    if suffix == ".json":
        return json_form(file) or ("coco" if chosen else None)
    if suffix not in TEXT:
        return None
    header = table.read_header(file, given)
    if header.token:
        return "token"
    if header.names is None:
        return "table"
    try:
        find_columns(header.names, given)
    except ValueError:
        return "table" if chosen else None
    if header.separator == "|" and header.names[0] == "image_name":
        return "flickr30k"
    return "flickr8k" if file.name == "captions.txt" else "table"


def _key_of_stored(file: Path, given: Named, chosen: bool) -> str | None:
    try:
        stored_tables.stored_columns(stored_schema(file), given)
    except ValueError:
        return "stored" if chosen else None
    return "stored"


def _has_fields(file: Path, given: Named) -> bool:
    line = next((line for line in text_lines(file, "\n") if line.strip()), "")
    try:
        fields = json.loads(line)
        find_columns(tuple(name.strip().lower() for name in fields), given)
    except (ValueError, RecursionError, TypeError, AttributeError):
        return False
    return True


def _hugging_face(form: Form) -> Form | None:
    """The form of an image folder or of `save_to_disk`, None if it is neither."""
    metadata = [file for file in _candidates(form.root, (*TEXT, *JSON, *STORED))]
    metadata = [file for file in metadata if file.name in METADATA]
    if metadata:
        return _with_splits(form, "metadata", metadata)
    states = sorted(
        file
        for pattern in ("state.json", "*/state.json")
        for file in form.root.glob(pattern)
        if (file.parent / "dataset_info.json").is_file()
    )
    files = []
    for state in states:
        try:
            named = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            files += [state.parent / part["filename"] for part in named]
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(f"{state} is damaged ({error!r})") from None
    if missing := [file for file in files if not file.is_file()]:
        raise Refusal(f"{missing[0]} is missing, though its state.json names it")
    return _with_splits(form, "arrow", files) if files else None


def _searched(form: Form) -> Form | None:
    """The form of the caption files that are found by looking into files; None if there is none.

    Raises:
        Refusal: There are two forms, or two files whose names tell no splits.
    """
    keys: dict[Path, str] = {}
    for file in _candidates(form.root, (*TEXT, *JSON, *STORED)):
        if _LISTS.search(file.name):
            continue
        try:
            key = _key(file, form.given)
        except Refusal:  # damaged, or not UTF-8: not what is looked for
            continue
        if key:
            keys[file] = key
    if not keys:
        return None
    files = list(keys)
    found = _with_splits(form, keys[files[0]], files)
    shards = keys[files[0]] == "stored"
    if len(set(keys.values())) > 1 or (
        len(files) > 1 and not shards and any(part.split is None for part in found.parts)
    ):
        raise _ambiguous(form.root, dict(keys))
    return found


def _candidates(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with these extensions in a folder and `DEPTH` levels below, sorted.

    Files that lie beside a picture of their name are no candidates.
    """
    found: list[Path] = []
    level = [str(root)]
    for _ in range(DEPTH + 1):
        below: list[str] = []
        for folder in level:
            pictures: set[str] = set()
            names: list[str] = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    elif entry.name.lower().endswith(PICTURE_EXTENSIONS):
                        pictures.add(os.path.splitext(entry.name)[0])
                    elif entry.name.lower().endswith(suffixes):
                        names.append(entry.name)
            found += [
                Path(folder, name) for name in names if os.path.splitext(name)[0] not in pictures
            ]
        level = below
    return sorted(found)


def _beside(form: Form, extension: str | None) -> Form | None:
    """The form of text beside pictures; None if no picture has a text file."""
    found = text_beside.find_extension(form.root, extension)
    if found is None:
        return None
    with os.scandir(form.root) as entries:
        listing = list(entries)
    folders = sorted(entry.name for entry in listing if entry.is_dir())
    splits = [split_in_name(name) if re.fullmatch("[A-Za-z]+", name) else None for name in folders]
    loose = any(entry.name.lower().endswith(PICTURE_EXTENSIONS) for entry in listing)
    parts: tuple[Part, ...] = (Part(form.root),)
    if not loose and None not in splits and len(set(splits)) > 1:
        parts = tuple(Part(form.root / n, s) for n, s in zip(folders, splits, strict=True))
    img2dataset = any(form.root.glob("[0-9]*_stats.json"))
    key = "img2dataset" if img2dataset else "beside"
    return dataclasses.replace(form, key=key, parts=parts, extension=found)
