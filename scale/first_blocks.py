"""Ends a job early in which no picture can be read, such as one without the right to read them.

Otherwise it would write an error for every picture, and errors are final.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq

from model.refusal import Refusal
from scale.output.parts import block_file
from scale.output.rows import Counts
from scale.output.store import Store

#: Codes of pictures whose bytes did not come.
UNREAD = ("unreadable_file", "fetch_failed")
#: Blocks without one picture that was read, after which the job ends.
MANY = 4


def checked(
    store: Store, blocks: Iterable[tuple[int, Counts]], *, is_first: bool
) -> Iterator[tuple[int, Counts]]:
    """Pass on blocks that were written; the first ones when a picture of them was read.

    Args:
        store: The output.
        blocks: Blocks as they are written, with their counts.
        is_first: Whether no block was written before.

    Raises:
        Refusal: No picture of the first blocks could be read. Their files are removed.
    """
    waiting: list[tuple[int, Counts]] = []
    for block, counts in blocks:
        unread = sum(counts.errors[code] for code in UNREAD)
        if not is_first or unread < counts.rows:
            is_first = False
            yield from waiting
            waiting = []
            yield block, counts
            continue
        waiting.append((block, counts))
        if len(waiting) == MANY:
            names = [block_file(each) for each, _ in waiting]
            rows = pq.read_table(io.BytesIO(store.read(names[0])), columns=["id", "error"])
            first = rows.slice(0, 1).to_pylist()[0]
            store.remove(names)
            raise Refusal(
                f"none of the first {sum(each.rows for _, each in waiting):,} pictures can be "
                f"read; {first['id']}: {first['error']}; check the input, and the right to read it "
                "on every node"
            )
    yield from waiting
