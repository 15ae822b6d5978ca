"""How the outcome for a picture is written as a record of CSV or of JSON lines, and read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from client.errors import CaptionError
from client.results import CaptionResult

Outcome = CaptionResult | CaptionError

#: Columns of the CSV. The last two are of failures; `other_captions` has a line for each.
COLUMNS = (
    *("file", "caption", "confidence", "quality", "finish_reason", "other_captions", "warnings"),
    *("error", "message"),
)

#: Most lines of one record: those of other captions, and of a file name with line breaks.
MOST_LINES = 20


class RecordFormat(Protocol):
    """A format of records. Each ends with a line break.

    Attributes:
        header: The first record of a file; empty if there is none.
    """

    header: bytes

    def record(self, picture: str, outcome: Outcome) -> bytes:
        """What is written for a picture."""

    def parse(self, record: bytes) -> tuple[str, bool]:
        """The picture of a record and whether it has an answer; ValueError if it is no record."""

    def check_header(self, record: bytes) -> None:
        """Raise ValueError if this is not the header."""

    def may_be_cut(self, record: bytes, *, first: bool) -> bool:
        """Whether this is the beginning of a record, of the first of its file or of a later one."""

    def split(self, file: BinaryIO) -> Iterator[bytes]:
        """The records of a file. The last one may be unfinished."""


class JsonLines:
    """An object a line: `{"file": ..., "caption": ..., ...}` or `{"file": ..., "error": {...}}`."""

    header = b""

    def record(self, picture: str, outcome: Outcome) -> bytes:
        """A line of ASCII, whatever bytes the name of the file has."""
        return json.dumps({"file": picture, **outcome_fields(outcome)}).encode() + b"\n"

    def parse(self, record: bytes) -> tuple[str, bool]:
        """See `RecordFormat`."""
        try:
            fields = json.loads(record)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict) and isinstance(fields.get("file"), str):
            if "error" in fields:
                return fields["file"], False
            if "captions" in fields:
                return fields["file"], True
        raise ValueError(f"not one of this command: {record[:40]!r}")

    def check_header(self, record: bytes) -> None:
        """There is none to check."""

    def may_be_cut(self, record: bytes, *, first: bool) -> bool:
        """See `RecordFormat`."""
        begin = b'{"file": "'
        return not record.endswith(b"\n") and record[: len(begin)] == begin[: len(record)]

    def split(self, file: BinaryIO) -> Iterator[bytes]:
        """See `RecordFormat`."""
        yield from file


class Csv:
    """Comma-separated values (RFC 4180) in UTF-8, with a header of `COLUMNS`."""

    header = (",".join(COLUMNS) + "\r\n").encode()

    def record(self, picture: str, outcome: Outcome) -> bytes:
        """A row. A file name that is no UTF-8 is written as the bytes that it has."""
        row: dict[str, object] = {"file": picture}
        if isinstance(outcome, CaptionResult):
            best, *others = outcome.captions
            row |= {
                "caption": best.caption,
                "confidence": best.confidence,
                "quality": best.quality,
                "finish_reason": best.finish_reason,
                "other_captions": "\n".join(each.caption for each in others),
                "warnings": " ".join(outcome.warnings),
            }
        else:
            row |= {"error": outcome.code, "message": outcome.message}
        text = io.StringIO(newline="")
        csv.DictWriter(text, COLUMNS).writerow(row)
        return text.getvalue().encode(errors="surrogateescape")

    def parse(self, record: bytes) -> tuple[str, bool]:
        """See `RecordFormat`."""
        text = io.StringIO(record.decode(errors="surrogateescape"), newline="")
        try:
            [row] = csv.reader(text, strict=True)
        except (csv.Error, ValueError):
            row = []
        if len(row) != len(COLUMNS):
            raise ValueError(f"not one of this command: {record[:40]!r}")
        return row[0], not row[COLUMNS.index("error")]

    def check_header(self, record: bytes) -> None:
        """See `RecordFormat`."""
        if record.removeprefix(b"\xef\xbb\xbf").strip() != self.header.strip():
            raise ValueError(f"{record[:40]!r}, and not the header {','.join(COLUMNS)}")

    def may_be_cut(self, record: bytes, *, first: bool) -> bool:
        """See `RecordFormat`. A cut between quotes may come after a line break."""
        if first:
            return self.header.startswith(record)
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            return False
        # After a stray quote all rows that follow seem to be one record, which is none of ours.
        return record.count(b"\r\n") == 0 and record.count(b"\n") <= MOST_LINES

    def split(self, file: BinaryIO) -> Iterator[bytes]:
        """See `RecordFormat`. A line break between quotes belongs to its record."""
        record = b""
        for line in file:
            record += line
            if record.count(b'"') % 2 == 0:
                yield record
                record = b""
        if record:
            yield record


def outcome_fields(outcome: Outcome) -> dict[str, object]:
    """An outcome as the members of a JSON object: those of the server's reply, or `error`."""
    if isinstance(outcome, CaptionResult):
        return outcome.to_dict()
    return {"error": {"status": outcome.status, "code": outcome.code, "message": outcome.message}}
