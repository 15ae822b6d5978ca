"""Reads captured pictures from the Parquet files that `handler.capture` writes.

Files are read a row group at a time, so a million captures need no more memory than ten thousand:
of the rows of a window a sample is kept, and counts are kept of all.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import heapq
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from model.refusal import Refusal
from monitoring.drift.words import words_of

#: A file of rows, or of pictures, and when it was written.
_NAME = re.compile(r"(?:capture|images)-(\d{8}T\d{6}\.\d{6}Z)-.*\.parquet")
#: Rows that are read at a time.
BATCH = 4096
#: Columns that are read, but for `feature`, which most rows do not need.
COLUMNS = ("id", "time", "caption", "confidence", "quality", "ood_score", "ood_p_value", "feature")
#: Rows of a window that are kept; more would hardly change what is found.
SAMPLE = 10_000
#: Unusual captures that are listed.
UNUSUAL = 20


@dataclasses.dataclass
class Window:
    """The captures of a span of time.

    Attributes:
        count: All of them.
        words: Word -> captions that have it.
        sample: Some of them, at most `SAMPLE`: name of a column -> values; `feature` is [n, D].
        unusual: Those with the smallest p-values, the most unusual first.
        first: The time of the oldest.
        last: The time of the newest.
    """

    count: int
    words: collections.Counter[str]
    sample: dict[str, Any]
    unusual: list[dict[str, Any]]
    first: datetime.datetime | None
    last: datetime.datetime | None


@dataclasses.dataclass
class Captures:
    """A folder of captures.

    Only files that may hold captures of the time that is asked for are opened: a folder may have
    many thousands.

    Attributes:
        folder: The folder.
        files: Its files of rows, oldest first.
        weights_sha256: The captioner of the newest file; only its rows are read.
        others: Files of other captioners among those that were opened; they are left out.
        unreadable: Files that could not be read; they are left out.
    """

    folder: Path
    files: list[Path]
    weights_sha256: str = ""
    others: set[str] = dataclasses.field(default_factory=set)
    unreadable: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def open(cls, folder: Path) -> Captures:
        """Look at the names in a folder, and at the newest file that can be read.

        Raises:
            Refusal: There is none.
        """
        found = sorted(folder.glob("capture-*.parquet")) if folder.is_dir() else []
        named = [file for file in found if _NAME.fullmatch(file.name)]
        captures = cls(folder, named)
        captures.unreadable.update({file.name for file in found}.difference(f.name for f in named))
        for file in reversed(named):
            with captures._opened(file) as opened:
                if opened is not None:
                    captures.weights_sha256 = _weights(opened)
                    return captures
        raise Refusal(
            f"{folder} holds no captures; set handler.capture in model-config.yaml to that folder, "
            "and caption some pictures"
        )

    @contextlib.contextmanager
    def _opened(self, file: Path) -> Iterator[parquet.ParquetFile | None]:
        """A file; None if it cannot be read, or if the server has just removed it."""
        try:
            opened = parquet.ParquetFile(file)
        except FileNotFoundError:
            yield None
        except (OSError, pyarrow.ArrowInvalid):
            self.unreadable.add(file.name)
            yield None
        else:
            with opened:
                yield opened

    def _batches(self, file: Path, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
        """The rows of a file, some at a time; none of a file of another captioner."""
        with self._opened(file) as opened:
            if opened is None:
                return
            if _weights(opened) != self.weights_sha256:
                self.others.add(file.name)
                return
            yield from opened.iter_batches(BATCH, columns=columns)

    def newest(self, count: int) -> datetime.datetime:
        """The time since which there are at least so many captures; of all if there are fewer.

        The newest files are read first, their times only.
        """
        newest: list[datetime.datetime] = []
        for file in reversed(self.files):
            for batch in self._batches(file, ["time"]):
                newest += batch.column("time").to_pylist()
            # Files of several workers overlap, so that one more is read than seems enough.
            if len(newest) >= count + BATCH:
                break
        newest.sort(reverse=True)
        return newest[min(count, len(newest)) - 1]

    def window(self, after: datetime.datetime, until: datetime.datetime) -> Window:
        """The captures of a span of time.

        Args:
            after: Those at this time are not in it.
            until: Those at this time are in it.
        """
        chosen = random.Random(0)
        count = 0
        words: collections.Counter[str] = collections.Counter()
        sample: list[dict[str, Any]] = []
        unusual: list[tuple[float, float, int, dict[str, Any]]] = []
        first: datetime.datetime | None = None
        last: datetime.datetime | None = None
        for file in self.files:
            if (written := _written(file)) is None or written < after:
                continue  # its rows are older still
            for batch in self._batches(file, list(COLUMNS)):
                rows = batch.drop_columns(["feature"]).to_pylist()
                features = batch.column("feature")
                for place, row in enumerate(rows):
                    if not after < row["time"] <= until:
                        continue
                    count += 1
                    words.update(words_of(row["caption"]))
                    first = row["time"] if first is None else min(first, row["time"])
                    last = row["time"] if last is None else max(last, row["time"])
                    if row["ood_p_value"] is not None:
                        rank = (-row["ood_p_value"], row["ood_score"], count, row)
                        heapq.heappush(unusual, rank)
                        if len(unusual) > UNUSUAL:
                            heapq.heappop(unusual)
                    # Reservoir sampling: each row is kept with the same probability.
                    slot = len(sample) if len(sample) < SAMPLE else chosen.randrange(count)
                    if slot < SAMPLE:
                        kept = {**row, "feature": np.asarray(features[place].values, np.float32)}
                        sample[slot : slot + 1] = [kept]
        listed = [each[-1] for each in sorted(unusual, reverse=True)]
        return Window(count, words, _columns(sample), listed, first, last)

    def pictures(self, ids: Sequence[str], since: datetime.datetime) -> dict[str, bytes]:
        """The stored pictures of some captures, by id; without those that were not stored.

        Args:
            ids: Of the captures.
            since: None of the captures is older.
        """
        wanted = set(ids)
        found: dict[str, bytes] = {}
        for file in sorted(self.folder.glob("images-*.parquet")):
            if (written := _written(file)) is None or written < since:
                continue
            ids_here = {
                each
                for batch in self._batches(file, ["id"])
                for each in batch.column("id").to_pylist()
            }
            if wanted & ids_here:
                for batch in self._batches(file, ["id", "image"]):
                    rows = batch.to_pylist()
                    found |= {row["id"]: row["image"] for row in rows if row["id"] in wanted}
        return found


def _columns(sample: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns."""
    names = ("caption", "confidence", "quality", "ood_score", "ood_p_value")
    columns: dict[str, Any] = {name: [row[name] for row in sample] for name in names}
    features = [row["feature"] for row in sample]
    columns["feature"] = np.stack(features) if features else np.zeros((0, 0), np.float32)
    return columns


def _weights(opened: parquet.ParquetFile) -> str:
    """The captioner of a file, by the digest of its weights."""
    metadata = opened.schema_arrow.metadata or {}
    return metadata.get(b"weights_sha256", b"").decode()


def _written(file: Path) -> datetime.datetime | None:
    """When a file was written, by its name; None for a name that the server does not give."""
    if (found := _NAME.fullmatch(file.name)) is None:
        return None
    written = datetime.datetime.strptime(found[1], "%Y%m%dT%H%M%S.%fZ")
    return written.replace(tzinfo=datetime.UTC)
