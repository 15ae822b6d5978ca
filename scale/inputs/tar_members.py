"""Lists the pictures of a tar file (a WebDataset shard) with the place of their bytes in it.

The id of a picture is `SHARD/KEY`: the name of the tar file without its extension, and the
picture's own without its, as WebDataset names samples. Where two pictures of a shard would have
one id, such as `1.left.jpg` and `1.right.jpg`, both have their whole names.
"""

from __future__ import annotations

import collections
import tarfile
from typing import Any

import fsspec

from scale.inputs.entry import Entry, Kind
from scale.inputs.extensions import is_picture


def members_of(fs: fsspec.AbstractFileSystem, path: str, place: str) -> tuple[list[Entry], str]:
    """The pictures of a shard, in its order.

    Args:
        fs: Its file system.
        path: Of the shard in it.
        place: Its address for the plan.

    Returns:
        The pictures, and a sentence about where the shard is damaged; empty where it is not.
    """
    found: list[tuple[str, int, int]] = []
    fault, end = "", 0
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # A header with a negative size would lead back and be read again without end.
                if member.size < 0 or member.offset < end:
                    raise tarfile.ReadError(f"an entry at byte {member.offset} leads back")
                end = member.offset_data
                base = member.name.rpartition("/")[2]
                if member.isreg() and not member.issparse() and is_picture(base):
                    found.append((member.name, member.offset_data, member.size))
            _check_end(file, tar)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        after = f" after {found[-1][0]}" if found else ""
        fault = f"{place} is cut short, damaged or compressed{after} ({error})"
    shard = place.rpartition("/")[2].removesuffix(".tar")
    keys = [_key(name) for name, *_ in found]
    count = collections.Counter(keys)
    return [
        Entry(f"{shard}/{key if count[key] == 1 else name}", place, Kind.RANGE, offset, size)
        for key, (name, offset, size) in zip(keys, found, strict=True)
    ], fault


def _key(name: str) -> str:
    """A name up to the first dot behind its folder."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _check_end(file: Any, tar: tarfile.TarFile) -> None:
    """Refuse a tar file without its end: `tarfile` stops at a damaged header without an error."""
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end is marked at byte {tar.offset}")
