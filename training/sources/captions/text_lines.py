"""Lines of a UTF-8 file, read one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model.refusal import Refusal
from training.sources.faults import MAX_LISTED, listed


def text_lines(file: Path, newline: str = "") -> Iterator[str]:
    """The lines with their ends, without the byte order mark that spreadsheets write.

    Args:
        file: The file.
        newline: As for `open`: an empty text ends a line at every kind of line end.

    Raises:
        Refusal: It is not UTF-8; the message lists the lines.
    """
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as lines:
            yield from lines
    except UnicodeDecodeError:
        raise _not_utf8(file) from None


def _not_utf8(file: Path) -> Refusal:
    """An error that names the lines that are not UTF-8."""
    bad: list[str] = []
    count = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                count += 1
                if count <= MAX_LISTED:
                    byte = line[error.start]
                    bad.append(f"line {number}, byte {error.start + 1} is 0x{byte:02x}")
    more = f"\n  … and {count - MAX_LISTED} more" if count > MAX_LISTED else ""
    return Refusal(
        f"{file} is not UTF-8 on {count} lines; save it with the encoding UTF-8:{listed(bad)}{more}"
    )
