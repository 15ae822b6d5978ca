"""Cleans captions as other people's files hold them, and counts what it changes.

Captions that were taken from web pages hold HTML, and captions that were written by pandas hold
`nan` for an empty cell and Python's notation for a list. A captioner that is trained on such text
writes it again.
"""

from __future__ import annotations

import ast
import html
import re
import sys
from collections import Counter
from typing import Any

from training.sources.faults import clean_text

#: What programs write for a caption that is missing, in lower case.
MISSING = ("nan", "none", "null", "<na>", "n/a")
#: How often a text may have been encoded: `&amp;quot;` was encoded twice.
ENCODED = 3
#: HTML entities with their semicolon: `R&D` and `AT&T` have none.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
#: Tags of HTML that format text, and comments. Other words in angle brackets, such as <person>, may
#: be part of the caption.
_TAG = re.compile(
    r"<!--[^<]*?-->|</?(?:a|abbr|b|big|br|center|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|q|s|small"
    r"|span|strong|sub|sup|table|tbody|td|th|tr|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_OTHER_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
#: A list of texts in the notation of Python or JSON.
_LIST = re.compile(r"""\[\s*['"].*['"]\s*,?\s*\]""", re.DOTALL)

ENTITIES = "had HTML entities such as &amp;, which were decoded"
TAGS = "had HTML tags such as <br>, which were replaced by a space"
LISTS = "were lists such as ['a', 'b'], which became several captions"
OTHER_TAGS = "have words in angle brackets such as <person>, which were kept"


def clean_captions(value: Any, name: str, changes: Counter[str], faults: list[str]) -> list[str]:
    """The captions in one value of a file.

    HTML entities are decoded, HTML tags become a space, and white space becomes a single space.

    Args:
        value: What the file has.
        name: Its field, for messages.
        changes: What was changed (such as `ENTITIES`) -> number of captions; added to.
        faults: A line is appended if the value, or an item of a list, is no text, is empty, or
            stands for a missing value, such as `nan`.

    Returns:
        One caption, or the items of a list that is written as text, without those that have a
        fault. They may be equal.
    """
    captions: list[str] = []
    try:
        text = clean_text(value, name)
    except ValueError as error:
        faults.append(str(error))
        return captions
    items = _list_items(text)
    changes[LISTS] += bool(items)
    for item in items or [text]:
        try:
            captions.append(_clean(item, name, changes))
        except ValueError as error:
            faults.append(str(error))
    return captions


def print_changes(changes: Counter[str]) -> None:
    """Print what was changed in captions, and in how many; nothing if nothing was."""
    if lines := [f"\n  {count} {change}" for change, count in changes.items() if count]:
        print(f"captions that are not plain text:{''.join(lines)}", file=sys.stderr)


def _clean(text: str, name: str, changes: Counter[str]) -> str:
    decoded = text
    for _ in range(ENCODED):
        decoded = _ENTITY.sub(lambda entity: html.unescape(entity[0]), decoded)
    without_tags = _TAG.sub(" ", decoded)
    clean = clean_text(without_tags, name)
    if clean.lower() in MISSING:
        raise ValueError(f"{name} is {clean!r}, which stands for a missing value")
    changes[ENTITIES] += decoded != text
    changes[TAGS] += without_tags != decoded
    changes[OTHER_TAGS] += _OTHER_TAG.search(clean) is not None
    return clean


def _list_items(text: str) -> list[str] | None:
    """The items of a list of texts in the notation of Python or JSON; None for other text."""
    if not _LIST.fullmatch(text):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return items if all(isinstance(item, str) for item in items) else None
