"""Files of answers with a record for each picture, which the next run continues.

A record is written as a whole before the next one, so a program that is killed loses none. What a
full disk or a power cut left unfinished at the end is taken off when the file is opened again. A
failure is recorded too. The next run tries that picture again, and its record replaces the failure.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from client.command.record_formats import Outcome, RecordFormat
from client.results import CaptionResult


class OutputError(Exception):
    """A file cannot hold the answers; the message says which file, and why."""


class LineFile:
    """Answers in one file, each with the path of its picture.

    Args:
        path: The file. It is made, or continued if it has records of this format.
        form: CSV or JSON lines.
        fresh: Whether to begin anew: the records that the file holds are removed.

    Attributes:
        torn: How many unfinished records were taken off its end: 0 or 1.

    Raises:
        OutputError: The file cannot be opened, another run writes to it, or it holds something
            else.
    """

    def __init__(self, path: Path, form: RecordFormat, *, fresh: bool = False) -> None:
        self._path, self._form = Path(os.path.realpath(path)), form
        self.torn = 0
        self._answered: set[str] = set()
        self._failed: set[str] = set()
        self._replaced = False
        try:
            self._file = self._open(self._path)
        except OSError as error:
            raise self._error(error) from None
        try:
            self._resume()
            if fresh:
                self._empty()
            self._compact()
        except OSError as error:
            os.close(self._file)
            raise self._error(error) from None
        except OutputError:
            os.close(self._file)
            raise

    def has(self, picture: Path) -> bool:
        """Whether the file has an answer for a picture. A failure is none."""
        return _key(str(picture)) in self._answered

    def write(self, picture: Path, outcome: Outcome) -> None:
        """Add a record.

        Raises:
            OutputError: The disk is full, for example. The file holds no part of the record.
        """
        try:
            self._append(self._form.record(str(picture), outcome))
        except OSError as error:
            raise self._error(error) from None
        key = _key(str(picture))
        self._replaced = self._replaced or key in self._failed
        (self._answered if isinstance(outcome, CaptionResult) else self._failed).add(key)

    def close(self) -> None:
        """Take out the failures that a later record replaces, and close the file.

        Raises:
            OutputError: The file cannot be written anew. It is left as it was.
        """
        try:
            self._compact()
        except OSError as error:
            raise self._error(error) from None
        finally:
            os.close(self._file)

    def _resume(self) -> None:
        """Read what the file has, and take an unfinished record off its end."""
        end = 0
        for number, record in enumerate(self._records()):
            try:
                if number == 0 and self._form.header:
                    self._form.check_header(record)
                else:
                    self._know(*self._form.parse(record))
            except ValueError as error:
                if self._form.may_be_cut(record, first=number == 0):
                    self.torn = 1
                    break
                raise OutputError(
                    f"{self._path} is left as it is: its record {number + 1} is {error}; give the "
                    "name of another file"
                ) from None
            end += len(record)
        if self.torn:
            os.ftruncate(self._file, end)
        if end == 0:
            self._append(self._form.header)
        elif os.pread(self._file, 1, end - 1) != b"\n":  # an editor may have taken it away
            self._append(b"\n")

    def _empty(self) -> None:
        os.ftruncate(self._file, 0)
        self._append(self._form.header)
        self._answered, self._failed, self._replaced = set(), set(), False

    def _know(self, picture: str, answered: bool) -> None:
        key = _key(picture)
        self._replaced = self._replaced or key in self._failed
        if answered:
            self._answered.add(key)
        else:
            self._replaced = self._replaced or key in self._answered
            self._failed.add(key)

    def _compact(self) -> None:
        """Write the file anew without failures that another record of their picture replaces."""
        if not self._replaced:
            return
        last = {}  # failure's picture -> number of its last record
        for number, record in enumerate(self._records()):
            if number > 0 or not self._form.header:
                picture, answered = self._form.parse(record)
                if not answered and _key(picture) not in self._answered:
                    last[_key(picture)] = number
        draft = self._path.with_name(f".{self._path.name}.part")
        draft.unlink(missing_ok=True)
        new = self._open(draft)
        try:
            os.fchmod(new, os.fstat(self._file).st_mode & 0o777)
            with open(os.dup(new), "wb") as file:
                for number, record in enumerate(self._records()):
                    if number > 0 or not self._form.header:
                        picture, answered = self._form.parse(record)
                        if not answered and last.get(_key(picture)) != number:
                            continue
                    file.write(record)
            os.replace(draft, self._path)
        except OSError:
            os.close(new)
            draft.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._failed, self._replaced = new, set(last), False

    def _records(self) -> Iterator[bytes]:
        with open(os.dup(self._file), "rb") as file:
            file.seek(0)
            yield from self._form.split(file)

    def _append(self, record: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            while record:
                record = record[os.write(self._file, record) :]
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def _open(self, path: Path) -> int:
        """A file that only this run writes to."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise OutputError(
                f"another run writes to {self._path}; wait until it ends, or give another file"
            ) from None
        return file

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path} cannot be written: {error.strerror or error}")


def _key(picture: str) -> str:
    """Of all names of a file the absolute one."""
    return os.path.abspath(picture)
