"""Reads a `.wandb` file, into which W&B writes a run before it sends it.

The package of W&B had a reader in Python until 0.30. The file is a log in the format of LevelDB,
whose records are messages of W&B: blocks of 32 KiB, in each block chunks with a head of 7 bytes
(checksum, length, type); a record that crosses blocks is a first, middle and last chunk. Source:
github.com/google/leveldb, doc/log_format.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

#: The file's own head: a magic word and a version.
HEAD = b":W&B"
HEAD_BYTES = 7
BLOCK = 32 * 1024
CHUNK = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(file: Path) -> Iterator[Record]:
    """The records of a file, whose checksums are checked."""
    data = file.read_bytes()
    assert data.startswith(HEAD)
    place, joined = HEAD_BYTES, b""
    while place + CHUNK.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK.size:  # padding at the end of a block
            place += left
            continue
        checksum, length, kind = CHUNK.unpack_from(data, place)
        content = data[place + CHUNK.size :][:length]
        assert zlib.crc32(content, zlib.crc32(bytes([kind]))) == checksum
        place += CHUNK.size + length
        joined = content if kind in (FULL, FIRST) else joined + content
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(joined)
            yield record
