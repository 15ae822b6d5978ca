"""A block between the stages, as a row of a Ray Data set: ids, errors, and the decoded pictures.

One row is one block, because Ray Data may join or divide rows, but never what is in a row.

Axes: N pictures that were decoded, S side of the encoder's image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pyarrow as pa
import torch

from scale.picture_error import PictureError

SCHEMA = pa.schema(
    [
        ("block", pa.int64()),
        ("ids", pa.list_(pa.string())),
        ("codes", pa.list_(pa.string())),
        ("messages", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.list_(pa.string()))),
        ("pixels", pa.large_binary()),
    ]
)


@dataclasses.dataclass
class DecodedBlock:
    """The pictures of a block after decoding.

    Attributes:
        block: Its number.
        ids: Of all its pictures.
        errors: For each picture why it was not decoded; None for those that were.
        warnings: For each picture what is wrong with its file without making it unusable.
        pixels: uint8 N x [S, S, 3], of those that were decoded, in their order.
    """

    block: int
    ids: Sequence[str]
    errors: Sequence[PictureError | None]
    warnings: Sequence[Sequence[str]]
    pixels: torch.Tensor | Sequence[bytes]

    def to_row(self) -> pa.Table:
        """The block as a table of one row."""
        values = [
            [self.block],
            [list(self.ids)],
            [[error and error.code for error in self.errors]],
            [[error and error.message for error in self.errors]],
            [[list(each) for each in self.warnings]],
            [b"".join(self.pixels)],
        ]
        arrays = [pa.array(value, field.type) for value, field in zip(values, SCHEMA, strict=True)]
        return pa.table(arrays, SCHEMA)

    @classmethod
    def of_row(cls, row: pa.Table, side: int) -> DecodedBlock:
        """The block of a table of one row; its pixels are a tensor [N, S, S, 3]."""
        codes, messages = (row.column(name)[0].as_py() for name in ("codes", "messages"))
        data = row.column("pixels")[0].as_buffer()
        pixels = torch.empty(0, dtype=torch.uint8)
        if data.size:  # a copy, since torch has no tensors that cannot be written to
            pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return cls(
            row.column("block")[0].as_py(),
            row.column("ids")[0].as_py(),
            [
                None if code is None else PictureError(code, message)
                for code, message in zip(codes, messages, strict=True)
            ],
            row.column("warnings")[0].as_py(),
            pixels.view(-1, side, side, 3),
        )
