"""The files of the output: a file for each block while a job runs, then one for each part.

    part-000000.parquet     rows of 64 blocks, written when all of them are there
    _blocks/0000000.parquet rows of a block of a part that is not complete yet
    _manifest.json          what became of the job, at its end

Every file has a name that its content alone decides, and appears whole. So work that is done twice,
by a process that was thought dead, replaces a file by an equal one. Readers of Parquet data sets
pass over names that begin with `_`.
"""

from __future__ import annotations

import collections
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from scale.output.rows import Counts
from scale.output.store import Store
from scale.plan import Plan

#: Folder of the blocks.
BLOCKS = "_blocks"
#: Key of a file's counts in its Parquet metadata.
_COUNTS = b"clipcap.counts"
#: Files read at a time: of a bucket each takes a tenth of a second.
_AT_A_TIME = 32


def part_file(part: int) -> str:
    """The file of a part."""
    return f"part-{part:06d}.parquet"


def block_file(block: int) -> str:
    """The file of a block."""
    return f"{BLOCKS}/{block:07d}.parquet"


def write_block(store: Store, block: int, table: pa.Table, counts: Counts) -> None:
    """Write the rows of a block."""
    store.write(block_file(block), _encoded(table, counts))


def written(store: Store, plan: Plan) -> tuple[set[int], set[int]]:
    """The parts, and the blocks of other parts, that are written already."""
    parts = _numbers(store, "", r"part-(\d{6})\.parquet") & set(range(plan.parts))
    blocks = _numbers(store, BLOCKS, r"(\d{7})\.parquet") & set(range(plan.blocks))
    done = {block for part in parts for block in plan.blocks_of(part)}
    store.remove(block_file(block) for block in blocks & done)  # left by a run that was killed
    return parts, blocks - done


def merge(store: Store, plan: Plan, part: int) -> Counts:
    """Write a part from its blocks, which are removed then.

    Returns:
        Its counts.

    Raises:
        FileNotFoundError: A block is not there.
    """
    names = [block_file(block) for block in plan.blocks_of(part)]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        files = list(pool.map(store.read, names))
    tables = [pq.read_table(io.BytesIO(data)) for data in files]
    counts = sum((_counts(table.schema) for table in tables), Counts())
    store.write(part_file(part), _encoded(pa.concat_tables(tables), counts))
    store.remove(names)
    return counts


def counts_of_parts(store: Store, parts: set[int]) -> dict[int, Counts]:
    """The counts of parts that are written, from the ends of their files."""

    def read(part: int) -> Counts:
        with store.fs.open(store.path(part_file(part)), "rb") as file:
            return _counts(pq.read_schema(file))

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return dict(zip(sorted(parts), pool.map(read, sorted(parts)), strict=True))


def _numbers(store: Store, folder: str, pattern: str) -> set[int]:
    found = (re.fullmatch(pattern, name) for name in store.names(folder))
    return {int(each[1]) for each in found if each}


def _encoded(table: pa.Table, counts: Counts) -> bytes:
    described = json.dumps({"rows": counts.rows, "errors": counts.errors}).encode()
    file = io.BytesIO()
    schema = {**(table.schema.metadata or {}), _COUNTS: described}
    pq.write_table(table.replace_schema_metadata(schema), file, compression="zstd")
    return file.getvalue()


def _counts(schema: pa.Schema) -> Counts:
    fields = json.loads(schema.metadata[_COUNTS])
    return Counts(fields["rows"], collections.Counter(fields["errors"]))
