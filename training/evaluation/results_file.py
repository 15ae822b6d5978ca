"""Captions in the form of COCO's results: `[{"image_id": 42, "caption": "a dog"}, ...]`.

COCO's server, nocaps' and other people's tools take and give this file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.data.dataset import MAX_ID, CaptionDataset, read_json

FORM = '[{"image_id": 42, "caption": "a dog"}, ...]'
_DIGITS = re.compile(r"\s*-?[0-9]{1,19}\s*")


@dataclasses.dataclass(frozen=True)
class Results:
    """The captions of a results file.

    Attributes:
        splits: Split -> image id -> caption, in the order of the split.
        notes: Lines on captions and splits that are not scored, and on empty captions.
    """

    splits: dict[str, dict[int, str]]
    notes: list[str]


def write_results(file: Path, captions: Mapping[int, str]) -> None:
    """Write captions, a line for each.

    Args:
        file: The file.
        captions: Image id -> caption.
    """
    rows = [json.dumps({"image_id": i, "caption": text}) for i, text in captions.items()]
    file.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def read_results(
    file: Path, dataset: CaptionDataset, splits: Sequence[str], empty: bool = False
) -> Results:
    """The captions of a file for splits of a data set, one for each picture.

    A split of which the file has no picture is left out with a note, as are captions of pictures
    in other splits.

    Args:
        file: The results file; ids may be numbers or texts of digits.
        dataset: The data set.
        splits: Names of its splits.
        empty: Whether empty captions are scored; else they are refused.

    Raises:
        Refusal: The file has another form, or it has ids that the data set lacks, lacks pictures of
            a split, has an id twice, or has empty captions. The message counts all of these.
    """
    wanted = {i: split for split in splits for i in dataset.ids(split)}
    found: dict[int, str] = {}
    twice: dict[int, int] = {}
    for i, caption in _entries(file):
        if i in found:
            twice[i] = twice.get(i, 0) + 1
        found.setdefault(i, caption)
    ids = list(found)
    rows = dataset.files.rows(ids)
    unknown = [i for i, row in zip(ids, rows.tolist(), strict=True) if row < 0]
    present = [s for s in splits if any(i in found for i in dataset.ids(s))]
    missing = [i for s in present for i in dataset.ids(s) if i not in found]
    blank = [i for i, caption in found.items() if not caption.strip() and i in wanted]
    name = dataset.root
    faults = [
        _fault(unknown, f"ids are not in {name}"),
        _fault(missing, f"pictures of {', '.join(present)} have no caption"),
        _fault(list(twice), f"ids have {sum(twice.values()) + len(twice)} captions together"),
    ]
    if not empty:
        way = "evaluate.allow_empty=true scores them, with 0"
        faults.append(_fault(blank, f"captions are empty ({way})"))
    if any(faults):
        raise Refusal(
            f"{file} does not fit: {'; '.join(filter(None, faults))}. Each picture of a split "
            "needs one caption"
        )
    if not present:
        raise Refusal(
            f"{file} has no picture of {', '.join(splits)} of {name}; name its split: "
            f"evaluate.splits=[...], of {', '.join(dataset.splits)}"
        )
    notes = [f"{s} left out: {file.name} has none of its pictures." for s in splits
             if s not in present]  # fmt: skip
    if others := len(found) - sum(i in wanted for i in found):
        notes.append(f"{others} captions of {file.name} are of other splits and are not scored.")
    if blank:
        notes.append(f"{len(blank)} captions are empty; every score of words gives them 0.")
    return Results({s: {i: found[i] for i in dataset.ids(s)} for s in present}, notes)


def _entries(file: Path) -> Iterator[tuple[int, str]]:
    """Id and caption of each entry, in file order."""
    entries: Any = read_json(file, f"give a file of captions: {FORM}")
    if not isinstance(entries, list):
        raise Refusal(f"{file} holds a {type(entries).__name__}; it must be a list: {FORM}")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not {"image_id", "caption"} <= entry.keys():
            raise Refusal(f"{file}: entry {number} has no image_id or no caption; write {FORM}")
        caption = entry["caption"]
        if not isinstance(caption, str):
            raise Refusal(
                f"{file}: the caption of entry {number} is {json.dumps(caption)[:80]}; "
                "it must be text"
            )
        yield _number(file, number, entry["image_id"]), caption


def _number(file: Path, entry: int, value: Any) -> int:
    """An image id, from a number or its digits."""
    whole = isinstance(value, float) and value.is_integer()  # as tables write numbers
    if (type(value) is int or whole) and abs(value) <= MAX_ID:
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value) and abs(int(value)) <= MAX_ID:
        return int(value)
    raise Refusal(
        f"{file}: image_id of entry {entry} is {json.dumps(value)[:80]}; it must be a whole number "
        "of at most 64 bits, or its digits as text"
    )


def _fault(ids: Sequence[int], what: str) -> str:
    """`N WHAT, first ID`; empty without ids."""
    return f"{len(ids)} {what}, first {ids[0]}" if ids else ""
