"""Values out of files that other people wrote, or what is wrong with them in a few words."""

from __future__ import annotations

import json
from typing import Any

from training.data.dataset import MAX_ID


def clean_text(value: Any, name: str) -> str:
    """Text with something in it; white space, line ends included, becomes single spaces.

    Args:
        value: What a file says; of a `file` only the ends are stripped.
        name: What it is called there.

    Raises:
        ValueError: It is no text, empty, or no sound Unicode.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}, which is no text")
    text = value.strip() if name == "file" else " ".join(value.split())
    if not text:
        raise ValueError(f"{name} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} {ascii(text)[:40]} has half of a character") from None
    return text


def read_id(item: Any, name: str) -> int:
    """The number by which COCO names something, from its field `name`.

    Raises:
        ValueError: `item` is no object, or has no such number of at most 63 bits.
    """
    if not isinstance(item, dict):
        raise ValueError("must be an object in braces")
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise ValueError(f"{name} is {_shown(value)}; it must be a whole number, 0 or more")
    return value


def _shown(value: Any) -> str:
    """A value of JSON as a message shows it, cut to what fits."""
    return "a list or an object" if isinstance(value, list | dict) else json.dumps(value)[:40]
