"""Keeps the large parameters of a loaded captioner in its file, mapped into memory.

TorchScript reads a whole file into memory. Parameters that are not packed (`model.layers.linear`)
can stay in the file. Above all that is the token embedding: a third of GPT-2 124M, of which a step
reads 40 rows of 50,257. The system reads a mapped page when it is first used, drops it when memory
is short, and shares it between all workers of a machine.
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

#: Smallest tensor, in bytes, that is mapped.
MIN_MAPPED_BYTES = 1 << 20
#: Bytes that are compared at a time.
COMPARED_BYTES = 1 << 22
#: The header of a record in a zip file: its last two fields are the lengths of the name and of the
#: extra field, which follow it.
HEADER = struct.Struct("<26xHH")


def map_parameters(module: nn.Module, file: Path) -> None:
    """Turn every large parameter into a view of the file that it was loaded from.

    A parameter stays as it is where the file does not hold the same bytes, uncompressed. The cost
    is one reading of the records that have the size of a large parameter.

    Args:
        module: The module that `torch.jit.load` returned.
        file: The file of the module. It may be removed or replaced afterwards, but its bytes must
            not change.
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
                if size == parameter.nbytes and _equals(content, start, parameter):
                    parameter.data = _view(storage, start, parameter)
                    break


def release_free_memory() -> None:
    """Return freed memory, which the C library keeps, to the system (glibc only)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _start(content: BinaryIO, record: zipfile.ZipInfo) -> int:
    """The offset of a record's bytes in the file."""
    content.seek(record.header_offset)
    return record.header_offset + HEADER.size + sum(HEADER.unpack(content.read(HEADER.size)))


def _equals(content: BinaryIO, start: int, parameter: Tensor) -> bool:
    """Whether the file's bytes from `start` are the parameter's."""
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
    """A tensor like the parameter, whose data is in the mapped file from `start`."""
    empty = torch.empty(0, dtype=parameter.dtype)
    offset = start // parameter.element_size()
    return empty.set_(storage, offset, parameter.shape, parameter.stride())
