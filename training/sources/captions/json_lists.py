"""Captions in JSON that has one entry for each picture, or for each caption.

Karpathy  {"images": [{"filepath", "filename", "split", "sentences": [{"raw"}]}]}, for COCO,
Flickr8k and Flickr30k (arXiv 1412.2306)
lists     [{"image": ..., "caption": ...}] as of BLIP, with `image_id` alone as of ClipCap, or
in {"data": [...]} as of TextCaps
mappings  {"a.jpg": "a caption"}, {"a.jpg": ["a caption", ...]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.json_members import list_entries, members
from training.data.splits import canonical_split
from training.sources.captions.coco_files import UNCAPTIONED, image_lists
from training.sources.captions.columns import Named
from training.sources.captions.entry import Entry, Reading
from training.sources.captions.table import object_entry
from training.sources.faults import clean_text

#: Words for what is left out.
EMPTY = "captions that are empty"
UNSAID = "entries without a caption"
#: Words for what is said.
RESTVAL = "pictures of Karpathy's split restval, which go to train as is usual"


def read_karpathy(file: Path, reading: Reading) -> Iterator[Entry]:
    """The entries of a file of Karpathy's, one for each image.

    Raises:
        Refusal: It is not JSON.
    """
    restval, label = 0, reading.name(file)
    for name, images in image_lists(file):
        for number, image in enumerate(images if name == "images" else ()):
            where = f"{label} images[{number}]"
            try:
                if not isinstance(image, dict):
                    raise ValueError("must be an object in braces")
                file_name = clean_text(image.get("filename"), "filename")
                if image.get("filepath"):
                    file_name = f"{clean_text(image['filepath'], 'filepath')}/{file_name}"
                split = clean_text(image.get("split"), "split")
                restval += split == "restval"
                split = "train" if split == "restval" else canonical_split(split)
                sentences = image.get("sentences")
                if not isinstance(sentences, list) or not all(
                    isinstance(sentence, dict) for sentence in sentences
                ):
                    raise ValueError("sentences must be a list of objects")
                image_id = image.get("cocoid", image.get("imgid"))
                own_id = image_id if isinstance(image_id, int) and image_id >= 0 else None
            except ValueError as error:
                reading.faults.append(f"{where}: {error}")
                continue
            raw = [sentence.get("raw") for sentence in sentences]
            said = [text for text in raw if text is None or str(text).strip()]
            if len(said) < len(raw):  # as Karpathy's own file has a few
                reading.left_out[EMPTY] += len(raw) - len(said)
            if not said:
                reading.left_out[UNCAPTIONED] += 1
            if texts := reading.clean(where, said, "raw", repeats=True):
                yield Entry(where, file_name, texts, split, own_id)
    if restval:
        reading.notes.append(f"{restval} {RESTVAL}")


def read_list(file: Path, reading: Reading, given: Named, member: str | None) -> Iterator[Entry]:
    """The entries of a list of objects with a picture and its caption or captions.

    Args:
        file: The file.
        reading: Faults are added.
        given: Names of fields.
        member: Name of the list in the file; None if the file is the list.

    Raises:
        Refusal: It is not JSON.
    """
    label = reading.name(file)
    for number, item in enumerate(_items(file, member)):
        where = f"{label} {member or ''}[{number}]"
        if isinstance(item, dict) and not given.caption:
            item = _textcaps(item)
        if item is None:
            reading.left_out[UNSAID] += 1
            continue
        if entry := object_entry(where, item, reading, given, repeats=True):
            yield entry


def _items(file: Path, member: str | None) -> Iterator[Any]:
    """The entries of the list in a file."""
    if member is None:
        yield from list_entries(file)
        return
    for name, value in members(file):
        if name == member and isinstance(value, Iterator):
            yield from value


def _textcaps(item: dict[str, Any]) -> dict[str, Any] | None:
    """An entry of TextCaps with the names of other lists; None if it has no caption.

    An image has one entry for each of its captions (`caption_str`), and each entry has all of them
    again (`reference_strs`).
    """
    if not {"caption_str", "reference_strs", "set_name", "image_path"} & set(item):
        return item
    caption = item.get("caption_str") or item.get("reference_strs")
    if not caption:
        return None
    found = {"image": item.get("image_path") or item.get("image_id"), "caption": caption}
    return found | ({"split": item["set_name"]} if item.get("set_name") else {})


def read_mapping(file: Path, reading: Reading) -> Iterator[Entry]:
    """The entries of an object whose names are file names.

    Raises:
        Refusal: It is not JSON.
    """
    label = reading.name(file)
    for name, value in members(file):
        where = f"{label} {name}"
        captions = list(value) if isinstance(value, Iterator) else [value]
        if entry := reading.entry(where, name, captions, repeats=True):
            yield entry
