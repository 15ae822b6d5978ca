"""Reads the bytes of planned pictures: files, ranges of tar files, rows of Parquet, and URLs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import pyarrow as pa
import requests
from fsspec.implementations.local import LocalFileSystem

from model.refusal import Refusal
from scale.inputs.ahead import ahead
from scale.inputs.entry import Entry, Kind
from scale.inputs.parquet_rows import Columns, RowReader
from scale.output.store import filesystem
from scale.picture_error import PictureError

#: Most bytes of a picture file.
MAX_BYTES = 100_000_000
#: Pictures fetched at a time by one decoder, and pictures that it has fetched and not decoded yet.
FETCHES, FETCHED = 16, 32
#: Seconds in which a URL has to answer, and in which all of its picture has to come.
ANSWER_SECONDS, PICTURE_SECONDS = 10, 60
#: How often a URL is asked, and statuses that are worth asking again.
TRIES = 3
#: Seconds before it is asked again; twice as many the time after.
PAUSE = 2.0
_AGAIN = (429, 500, 502, 503, 504)


class PictureReader:
    """Reads pictures; to be closed, or used in a `with` block.

    Args:
        columns: Of Parquet inputs.
    """

    def __init__(self, columns: Columns) -> None:
        self._rows = RowReader(columns)
        self._pool = ThreadPoolExecutor(FETCHES)
        self._session = requests.Session()

    def __enter__(self) -> PictureReader:
        """The reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of files and threads."""
        self._rows.close()
        self._pool.shutdown()
        self._session.close()

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PictureError]:
        """The bytes of each picture in order, or why it cannot be read.

        Those that come over a network are fetched some ahead, several at a time.
        """
        if all(_is_near(entry) for entry in entries):
            yield from map(self._read, entries)
        elif all(entry.kind != Kind.ROW for entry in entries):
            yield from ahead(self._pool, self._read, entries, FETCHED)
        else:  # rows of one file have to be read in their order
            yield from map(self._read, entries)

    def _read(self, entry: Entry) -> bytes | PictureError:
        if max(entry.size, 0) > MAX_BYTES:
            return _too_large(entry.size)
        try:
            data = self._bytes(entry)
        except _FetchFailed as error:
            return PictureError("fetch_failed", f"{entry.place} was not fetched: {error}")
        except (OSError, Refusal, pa.ArrowException, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            return PictureError(
                "unreadable_file", f"{entry.place or 'no place'} cannot be read: {why}"
            )
        if data is None:
            return PictureError("no_image", f"row {entry.offset} of {entry.place} has no picture")
        return data if len(data) <= MAX_BYTES else _too_large(len(data))

    def _bytes(self, entry: Entry) -> bytes | None:
        if not entry.place:
            raise FileNotFoundError(2, "no path or URL is given")
        if entry.kind == Kind.ROW:
            return self._rows.read(entry.place, entry.offset)
        if entry.kind == Kind.FILE and entry.place.startswith(("http://", "https://")):
            return self._fetch(entry.place)
        fs, path = filesystem(entry.place)
        if entry.kind == Kind.RANGE:
            end = entry.offset + entry.size
            part: bytes = fs.cat_file(path, start=entry.offset, end=end)
            if len(part) < entry.size:
                raise ValueError(f"it ends before byte {end}; it has changed")
            return part
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                return file.read(MAX_BYTES + 1)
        whole: bytes = fs.cat_file(path)
        return whole

    def _fetch(self, url: str) -> bytes:
        """The body of a URL; asked again where it may answer later.

        Raises:
            _FetchFailed: It did not come.
        """
        why = ""
        for number in range(TRIES):
            if number:
                time.sleep(PAUSE * number)
            try:
                with self._session.get(url, stream=True, timeout=ANSWER_SECONDS) as reply:
                    why = f"status {reply.status_code}"
                    if reply.ok:
                        return _body(reply)
                    if reply.status_code not in _AGAIN:
                        break
            except (requests.ConnectionError, requests.Timeout) as error:
                why = f"{type(error).__name__}"
            except requests.RequestException as error:
                raise _FetchFailed(str(error)) from None
        raise _FetchFailed(why)


class _FetchFailed(Exception):
    """A URL that gave no picture; the text says why."""


def _body(reply: requests.Response) -> bytes:
    """All bytes of a reply, or one more than a picture may have."""
    end, data = time.monotonic() + PICTURE_SECONDS, bytearray()
    for part in reply.iter_content(1 << 16):
        data += part
        if time.monotonic() > end:
            raise _FetchFailed(f"it took more than {PICTURE_SECONDS} s")
        if len(data) > MAX_BYTES:
            break
    return bytes(data)


def _is_near(entry: Entry) -> bool:
    return entry.kind == Kind.ROW or "://" not in entry.place


def _too_large(size: int) -> PictureError:
    return PictureError(
        "request_too_large",
        f"the picture file has {size} bytes; the limit is {MAX_BYTES}; give a smaller version",
    )
