"""Reads captured pictures from the Parquet files that `handler.capture` writes.

Files are read a row group at a time, so a million captures need no more memory than ten thousand:
of the rows of a window a sample is kept, and counts are kept of all.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import heapq
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from model.refusal import Refusal
from monitoring.drift.words import words_of

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


@dataclasses.dataclass(frozen=True)
class Captures:
    """A folder of captures.

    Attributes:
        folder: The folder.
        files: Its files of rows, oldest first.
        weights_sha256: The captioner of the newest file; only its rows are read.
        others: Files of other captioners, which are left out.
        unreadable: Files that cannot be read, which are left out.
    """

    folder: Path
    files: list[Path]
    weights_sha256: str
    others: int
    unreadable: list[str]

    @classmethod
    def open(cls, folder: Path) -> Captures:
        """Look at the files of a folder.

        Raises:
            Refusal: There are none.
        """
        found = sorted(folder.glob("capture-*.parquet")) if folder.is_dir() else []
        files: list[tuple[Path, str]] = []
        unreadable: list[str] = []
        for file in found:
            try:
                metadata = parquet.read_schema(file).metadata or {}
                files.append((file, metadata[b"weights_sha256"].decode()))
            except FileNotFoundError:
                continue  # it was old, and the server has removed it
            except (OSError, KeyError, pyarrow.ArrowInvalid):
                unreadable.append(file.name)
        if not files:
            raise Refusal(
                f"{folder} holds no captures; set handler.capture in model-config.yaml to that "
                "folder, and caption some pictures"
            )
        newest = files[-1][1]
        own = [file for file, weights in files if weights == newest]
        return cls(folder, own, newest, len(files) - len(own), unreadable)

    def newest(self, count: int) -> datetime.datetime:
        """The time since which there are at least so many captures; of all if there are fewer.

        The newest files are read first, their times only.
        """
        newest: list[datetime.datetime] = []
        for file in reversed(self.files):
            for batch in _batches(file, ["time"]):
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
            if _written(file) < after:
                continue  # its rows are older still
            for batch in _batches(file, list(COLUMNS)):
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

    def pictures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The stored pictures of some captures, by id; without those that were not stored."""
        wanted = set(ids)
        found: dict[str, bytes] = {}
        for file in sorted(self.folder.glob("images-*.parquet")):
            for batch in _batches(file, ["id"]):
                if wanted & set(batch.column("id").to_pylist()):
                    for row in _rows(file, ["id", "image"], wanted):
                        found[row["id"]] = row["image"]
                    break
        return found


def _columns(sample: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as columns."""
    names = ("caption", "confidence", "quality", "ood_score", "ood_p_value")
    columns: dict[str, Any] = {name: [row[name] for row in sample] for name in names}
    features = [row["feature"] for row in sample]
    columns["feature"] = np.stack(features) if features else np.zeros((0, 0), np.float32)
    return columns


def _batches(file: Path, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a file, some at a time; none of a file that the server has just removed."""
    try:
        with parquet.ParquetFile(file) as opened:
            yield from opened.iter_batches(BATCH, columns=columns)
    except FileNotFoundError:
        return


def _rows(file: Path, columns: list[str], ids: set[str]) -> Iterator[dict[str, Any]]:
    for batch in _batches(file, columns):
        yield from (row for row in batch.to_pylist() if row["id"] in ids)


def _written(file: Path) -> datetime.datetime:
    """When a file was written, by its name: `capture-20261130T151200.123456Z-PID-N.parquet`."""
    stamp = file.name.split("-")[1]
    found = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ")
    return found.replace(tzinfo=datetime.UTC)
