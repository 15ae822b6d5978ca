"""Which blocks of a job are written, and the parts that are made of them while the job runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from model.refusal import Refusal
from scale.output.parts import counts_of_parts, merge, written
from scale.output.rows import Counts
from scale.output.store import Store
from scale.plan import PART_BLOCKS, Plan

#: Parts that are made at a time.
_MERGES = 2


class Assembly:
    """The output of a job, from what earlier runs wrote to all of its parts.

    Args:
        store: The output.
        plan: Of the job.

    Attributes:
        rows: Pictures whose rows are written.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store, self._plan = store, plan
        self._parts, found = written(store, plan)
        self._blocks: dict[int, set[int]] = {}  # part -> its blocks, while it is not complete
        self._merges: dict[int, Future[Counts]] = {}
        self._pool = ThreadPoolExecutor(_MERGES)
        self.rows = sum(plan.rows_of(b) for part in self._parts for b in plan.blocks_of(part))
        for block in sorted(found):
            self._note(block)

    def remaining(self) -> Iterator[int]:
        """The blocks that are not written, rising."""
        for part in range(self._plan.parts):
            if part not in self._parts and part not in self._merges:
                there = self._blocks.get(part, set())
                yield from (b for b in self._plan.blocks_of(part) if b not in there)

    def add(self, block: int) -> int:
        """A block was written; its part is made if that was the last one.

        Returns:
            Its pictures; 0 if that was known, since Ray may do work twice.

        Raises:
            OSError: A part that was made before cannot be written.
        """
        for merged in self._merges.values():
            if merged.done():
                merged.result()
        part = block // PART_BLOCKS
        if part in self._merges or part in self._parts or block in self._blocks.get(part, ()):
            return 0
        return self._note(block)

    def _note(self, block: int) -> int:
        part = block // PART_BLOCKS
        there = self._blocks.setdefault(part, set())
        there.add(block)
        if len(there) == len(self._plan.blocks_of(part)):
            del self._blocks[part]
            self._merges[part] = self._pool.submit(merge, self._store, self._plan, part)
        rows = self._plan.rows_of(block)
        self.rows += rows
        return rows

    def complete(self) -> dict[int, Counts]:
        """Wait for the parts.

        Returns:
            The counts of each part, by its number.

        Raises:
            Refusal: Not all of them have all their rows.
        """
        self._pool.shutdown(wait=True)
        counts = counts_of_parts(self._store, self._parts)
        counts |= {part: merged.result() for part, merged in self._merges.items()}
        for part in range(self._plan.parts):
            wanted = sum(map(self._plan.rows_of, self._plan.blocks_of(part)))
            found = counts[part].rows if part in counts else 0
            if found != wanted:
                raise Refusal(
                    f"part {part} of {self._store.address} has {found} rows instead of {wanted}; "
                    "run the same command again"
                )
        return dict(sorted(counts.items()))

    def close(self) -> None:
        """Let the parts that are being made be finished, and make no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
