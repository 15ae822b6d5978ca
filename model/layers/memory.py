"""What a loaded captioner holds in memory: no more than it must.

TorchScript reads a whole file into memory. What no layer has laid out anew (`model.layers.linear`)
can stay in the file: the token embedding above all, a third of GPT-2 124M, of which a step reads 40
rows of 50,257. Mapped, its pages belong to the system: they are read when first touched, given up
when memory is short, and shared by all workers of a machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

#: Bytes of a tensor for which a mapping pays.
MIN_MAPPED_BYTES = 1 << 20
#: Bytes compared at a time.
COMPARED_BYTES = 1 << 22
#: A zip file's header before each record, up to the lengths of its name and its extra field.
HEADER = struct.Struct("<26xHH")


def map_parameters(module: nn.Module, file: Path) -> None:
    """Let every large parameter be a view of the file that it was loaded from.

    A parameter that the file does not hold byte for byte, uncompressed, stays as it is. Costs one
    reading of the records that come into question.

    Args:
        module: As `torch.jit.load` gave it.
        file: What it was loaded from. It may be removed or replaced meanwhile, but not written to.
    """
    large = [each for each in module.parameters() if each.nbytes >= MIN_MAPPED_BYTES]
    with zipfile.ZipFile(file) as archive, file.open("rb") as content:
        records = [
            (_start(content, record), record.file_size)
            for record in archive.infolist()
            if record.compress_type == zipfile.ZIP_STORED
        ]
        storage = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size)
        for parameter in large:
            for start, size in records:
                if size == parameter.nbytes and _holds(content, start, parameter):
                    parameter.data = _view(storage, start, parameter)
                    break


def release_free_memory() -> None:
    """Return to the system what the C library keeps of memory that was let go (glibc only)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _start(content: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Where the bytes of a record begin."""
    content.seek(record.header_offset)
    return record.header_offset + HEADER.size + sum(HEADER.unpack(content.read(HEADER.size)))


def _holds(content: BinaryIO, start: int, parameter: Tensor) -> bool:
    """Whether the file has the parameter's bytes there."""
    if not parameter.is_contiguous() or start % parameter.element_size():
        return False
    content.seek(start)
    read = torch.empty(COMPARED_BYTES, dtype=torch.uint8)
    for part in parameter.detach().view(-1).view(torch.uint8).split(COMPARED_BYTES):
        content.readinto(read.numpy())  # type: ignore[attr-defined]
        if not torch.equal(read[: len(part)], part):
            return False
    return True


def _view(storage: Any, start: int, parameter: Tensor) -> Tensor:
    """The parameter, in the mapped file."""
    empty = torch.empty(0, dtype=parameter.dtype)
    offset = start // parameter.element_size()
    return empty.set_(storage, offset, parameter.shape, parameter.stride())
