"""The members of a large JSON object, and the entries of its lists, one after another.

Only the entry that is being read is in memory, where `json.load` makes objects of the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from model.refusal import Refusal

#: Characters read at a time.
PART = 1 << 18
_SPACE = re.compile(r"[ \t\n\r]*")
_BEHIND_A_VALUE = frozenset(" \t\n\r,:]}")
_decode = json.JSONDecoder().raw_decode


def members(file: Path, part: int = PART) -> Iterator[tuple[str, Any]]:
    """Names and values of the object that a file holds; a list as an iterator of its entries.

    Args:
        file: UTF-8.
        part: Characters read at a time; longer entries are read nevertheless.

    Raises:
        Refusal: It is not JSON; only when that place is come to.
        TypeError: It is another value than an object.
    """
    with file.open(encoding="utf-8", newline="") as opened:
        text = _Text(opened, part)
        if text.peek() not in ("{", ""):
            raise TypeError("it is no object")
        text.take("{")
        end = text.take("}") if text.peek() == "}" else ","
        while end == ",":
            name = text.value()
            text.take(":")
            if text.peek() == "[":
                entries = _entries(text)
                yield name, entries
                for _ in entries:  # that nobody wanted
                    pass
            else:
                yield name, text.value()
            end = text.take(",}")
        if text.peek():
            raise text.refusal("extra data")


def _entries(text: _Text) -> Iterator[Any]:
    text.take("[")
    end = text.take("]") if text.peek() == "]" else ","
    while end == ",":
        yield text.value()
        end = text.take(",]")


class _Text:
    """A text file from where reading stands."""

    def __init__(self, file: TextIO, part: int) -> None:
        self._file = file
        self._part = part
        self._text, self._at = "", 0
        self._before = 0  # characters of the file before this text

    def peek(self) -> str:
        """The next character that is not white space; nothing at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match
            self._at = match.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, wanted: str) -> str:
        """The next character, which must be one of these."""
        found = self.peek()
        if not found or found not in wanted:
            raise self.refusal(f"expected {' or '.join(wanted)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.refusal(error.msg) from None
            except RecursionError as error:
                raise self.refusal(str(error)) from None
            else:
                # A number may go on behind what has been read.
                if self._text[end : end + 1] in _BEHIND_A_VALUE or not self._more():
                    self._at = end
                    return value

    def refusal(self, what: str) -> Refusal:
        """What is wrong, and where."""
        place = self._before + self._at
        return Refusal(f"{self._file.name} is not JSON: {what}, behind character {place}")

    def _more(self) -> bool:
        """Read on, twice as much each time within one value; whether there was more."""
        left = self._text[self._at :]
        try:
            read = self._file.read(max(self._part, len(left)))
        except UnicodeDecodeError as error:
            raise self.refusal(str(error)) from None
        if read:
            self._before += self._at
            self._text, self._at = left + read, 0
        return bool(read)
