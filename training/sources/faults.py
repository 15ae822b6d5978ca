"""Checks of values that a source reads from other people's files, and lists of what is wrong.

A source collects all faults and reports them together, so that one run shows all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from model.refusal import Refusal
from training.data.dataset import MAX_ID

#: Faults that a message lists; further ones are only counted.
MAX_LISTED = 20
#: Faults that are kept as text; further ones are only counted.
MAX_KEPT = 1000


def clean_text(value: Any, name: str) -> str:
    """A text that is not empty, with every run of white space (line ends too) as a single space.

    Args:
        value: What the file has.
        name: Its field, for messages. Of a field `file` only the ends are stripped, since a file
            name may contain two spaces in a row.

    Returns:
        The text; it can be encoded as UTF-8.

    Raises:
        ValueError: `value` is not a text, is empty, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is {short_json(value)}, which is no text")
    text = value.strip() if name == "file" else " ".join(value.split())
    if not text:
        raise ValueError(f"{name} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} {ascii(text)[:40]} has half of a character") from None
    return text


def shortened(text: str) -> str:
    """A text for a message: at most 40 characters of it."""
    return text if len(text) <= 40 else f"{text[:40]}…"


def read_id(item: Any, name: str) -> int:
    """The id in field `name` of an entry of a COCO file.

    Args:
        item: The entry.
        name: `id`, `image_id` or `cocoid`.

    Returns:
        A number from 0 to `MAX_ID`.

    Raises:
        ValueError: `item` is not an object, or the field holds no such number.
    """
    if not isinstance(item, dict):
        raise ValueError("must be an object in braces")
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise ValueError(f"{name} is {short_json(value)}; it must be a whole number, 0 or more")
    return value


class Faults(Sequence[str]):
    """A list of faults that keeps the first `MAX_KEPT` and counts the others.

    A file of a million lines may have a fault in each.
    """

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._count = 0

    def append(self, fault: str) -> None:
        """Add a fault."""
        self._count += 1
        if len(self._kept) < MAX_KEPT:
            self._kept.append(fault)

    def __len__(self) -> int:
        """Number of faults, with those that are not kept."""
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """A fault or a slice of the first `MAX_KEPT`."""
        return self._kept[index]


def counted(faults: Sequence[str]) -> str:
    """The number of faults in words: `1 fault`, `2 faults`."""
    return f"{len(faults)} fault{'' if len(faults) == 1 else 's'}"


def listed(faults: Sequence[str]) -> str:
    """The first `MAX_LISTED` faults, each on an indented line, and the number of the others."""
    more = [f"… and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
    return "".join(f"\n  {fault}" for fault in [*faults[:MAX_LISTED], *more])


def check_on_broken(setting: str, value: str) -> None:
    """Refuse a value of `on_broken` that is not one of its two.

    Args:
        setting: Its full name, for the message.
        value: `stop` (any fault ends the command) or `skip` (what is faulty is left out).

    Raises:
        Refusal: Another value.
    """
    if value not in ("stop", "skip"):
        raise Refusal(f"{setting} is {value!r}; it must be stop or skip")


def short_json(value: Any) -> str:
    """A value for a message: its JSON, at most 40 characters of it."""
    return "a list or an object" if isinstance(value, list | dict) else json.dumps(value)[:40]
