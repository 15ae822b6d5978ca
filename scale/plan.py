"""The plan of a job: all its pictures, in blocks that are captioned and written as a whole.

The plan is a folder of Parquet files in the output, `_plan`, so neither ids nor places are held in
memory. Part N of the plan has the pictures of part N of the output; a group of rows of it is a
block. The same input gives the same plan, which is how a run continues the one before.

Pictures are first listed into a file on this machine. Hashes of their ids, sorted on disk too, show
which ids come twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.refusal import Refusal
from scale.inputs.entry import SCHEMA, Entry, entries_of, table_of
from scale.output.store import Store

#: Blocks of a part.
PART_BLOCKS = 64
#: Rows that are listed, hashed and copied at a time.
_ROWS = 16_384


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many pictures a job has, and how they are divided.

    Attributes:
        rows: Pictures.
        block_rows: Pictures of a block, but for the last one.
    """

    rows: int
    block_rows: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.rows // self.block_rows)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.blocks // PART_BLOCKS)

    def blocks_of(self, part: int) -> range:
        """Numbers of the blocks of a part."""
        return range(part * PART_BLOCKS, min((part + 1) * PART_BLOCKS, self.blocks))

    def rows_of(self, block: int) -> int:
        """Pictures of a block."""
        return min(self.block_rows, self.rows - block * self.block_rows)


def plan_file(part: int) -> str:
    """The file of a part of the plan, in the output."""
    return f"_plan/part-{part:06d}.parquet"


def read_blocks(store: Store, blocks: Iterable[int]) -> Iterator[list[Entry]]:
    """The pictures of each of some blocks of one part."""
    file: pq.ParquetFile | None = None
    for block in blocks:
        if file is None:
            file = pq.ParquetFile(io.BytesIO(store.read(plan_file(block // PART_BLOCKS))))
        yield entries_of(file.read_row_group(block % PART_BLOCKS))


class ListedInput:
    """The pictures of an input, listed into a file of this machine; to be used in a `with` block.

    Attributes:
        rows: How many pictures, each id once.
        repeated: How many lines were left out because the same picture with the same id came
            before.
        fingerprint: SHA-256 of all pictures in their order.
    """

    def __init__(self, entries: Iterable[Entry], limit: int | None = None) -> None:
        """List the pictures.

        Args:
            entries: Of the input.
            limit: Most pictures that are taken.

        Raises:
            Refusal: Two different pictures have one id.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="clipcap-plan-")
        self._file = Path(self._folder.name) / "listed.parquet"
        self.rows = self.repeated = 0
        try:
            hashes = Path(self._folder.name) / "hashes"
            listed = self._list(itertools.islice(entries, limit), hashes)
            twice = _twice(hashes, listed) if listed else np.empty(0)
            if twice.size:
                self._drop_repeated(twice)
            self.fingerprint = self._fingerprint()
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> ListedInput:
        """The input itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file."""
        self._folder.cleanup()

    def _list(self, entries: Iterator[Entry], hashes: Path) -> int:
        with hashes.open("wb") as written, pq.ParquetWriter(self._file, SCHEMA) as writer:
            while rows := list(itertools.islice(entries, _ROWS)):
                self.rows += len(rows)
                writer.write_table(table_of(rows))
                written.write(b"".join(_hash(entry.id) for entry in rows))
        return self.rows

    def _drop_repeated(self, twice: np.ndarray) -> None:
        """Leave out pictures that came before; `twice` has the hashes of all ids in question."""
        suspects, seen = set(twice.tolist()), dict[str, Entry]()
        whole = self._file.with_name("unique.parquet")
        with pq.ParquetWriter(whole, SCHEMA) as writer:
            for rows in self._batches():
                kept = []
                for entry in rows:
                    if int.from_bytes(_hash(entry.id), "little") in suspects:
                        first = seen.setdefault(entry.id, entry)
                        if first is not entry and first != entry:
                            raise Refusal(
                                f"two pictures have the id {entry.id}: {_shown(first)} and "
                                f"{_shown(entry)}; ids must differ"
                            )
                        if first is not entry:
                            continue
                    kept.append(entry)
                self.repeated += len(rows) - len(kept)
                writer.write_table(table_of(kept))
        self.rows -= self.repeated
        whole.replace(self._file)

    def _batches(self, rows: int = _ROWS) -> Iterator[list[Entry]]:
        with pq.ParquetFile(self._file) as file:
            for batch in file.iter_batches(rows):
                yield entries_of(pa.Table.from_batches([batch]))

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for rows in self._batches():
            for entry in rows:
                digest.update(repr(tuple(entry)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def entries(self) -> Iterator[Entry]:
        """The pictures, in their order."""
        return itertools.chain.from_iterable(self._batches())

    def write_plan(self, store: Store, block_rows: int) -> Plan:
        """Write the plan into the output.

        Args:
            store: The output.
            block_rows: Pictures of a block.
        """
        plan, entries = Plan(self.rows, block_rows), self.entries()
        for part in range(plan.parts):
            written = io.BytesIO()
            with pq.ParquetWriter(written, SCHEMA) as writer:
                for _ in plan.blocks_of(part):
                    writer.write_table(table_of(list(itertools.islice(entries, block_rows))))
            store.write(plan_file(part), written.getvalue())
        return plan

    def first_difference(self, store: Store, plan: Plan) -> str:
        """What has changed since a plan was written, for a message."""
        planned = itertools.chain.from_iterable(
            rows for part in range(plan.parts) for rows in read_blocks(store, plan.blocks_of(part))
        )
        for number, (before, now) in enumerate(itertools.zip_longest(planned, self.entries()), 1):
            if before == now:
                continue
            if before is None or now is None:
                more = "is new" if before is None else "is gone"
                which = now if before is None else before
                return f"picture {number} ({which.id}) {more}"
            if before.id != now.id:
                return f"picture {number} was {before.id} and is {now.id}"
            return f"{before.id} was {_shown(before)} and is {_shown(now)}"
        return "nothing"


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _twice(hashes: Path, count: int) -> np.ndarray:
    """The hashes that a file has more than once; it is sorted in place, on disk."""
    values = np.memmap(hashes, "<u8", "r+", shape=(count,))
    values.sort()
    found = []
    for start in range(0, count - 1, 1 << 20):
        part = values[start : start + (1 << 20) + 1]
        found.append(np.unique(part[1:][part[1:] == part[:-1]]))
    return np.concatenate([np.empty(0, "<u8"), *found])


def _shown(entry: Entry) -> str:
    where = {0: "", 1: f" at byte {entry.offset}", 2: f" row {entry.offset}"}[entry.kind]
    return f"{entry.place}{where}" + (f" of {entry.size} bytes" if entry.size >= 0 else "")
