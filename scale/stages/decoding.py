"""The first stage: reads and decodes the pictures of blocks, in processes of its own.

A picture that cannot be read or decoded is an error of that picture. One that ends the whole
process is found by `scale.stages.deaths`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import torch

from model.image.decode import open_image
from model.image.preprocessing import Preprocessing, to_square
from scale.inputs.entry import Entry
from scale.inputs.parquet_rows import Columns
from scale.inputs.reading import PictureReader
from scale.output.store import Store
from scale.picture_error import PictureError, error_of, worker_failed
from scale.plan import read_blocks
from scale.stages.blocks import DecodedBlock
from scale.stages.deaths import Watched


def decode_block(
    block: int,
    entries: Sequence[Entry],
    reader: PictureReader,
    preprocessing: Preprocessing,
    max_pixels: int,
    watched: Watched | None = None,
) -> DecodedBlock:
    """Read and decode the pictures of a block.

    Args:
        block: Its number.
        entries: Its pictures.
        reader: Reads their bytes.
        preprocessing: What the encoder expects.
        max_pixels: Most pixels at which a picture is decoded.
        watched: Says which pictures have ended this process before; None for none.

    Returns:
        All pictures, each decoded or with an error.
    """
    errors: list[PictureError | None] = []
    warnings: list[list[str]] = []
    pixels: list[bytes] = []
    for index, data in enumerate(reader.read(entries)):
        error, found = None, list[str]()
        if isinstance(data, PictureError):
            error = data
        elif watched is not None and not watched.may_decode(block, index):
            error = worker_failed()
        else:
            try:
                opened = open_image(data, max_pixels, preprocessing.size)
                pixels.append(to_square(opened.decode(), preprocessing).tobytes())
                found = opened.warnings
            except Exception as raised:  # whatever it is, it stays with this picture
                error = error_of(raised)
        errors.append(error)
        warnings.append(found)
    return DecodedBlock(block, [entry.id for entry in entries], errors, warnings, pixels)


class DecodeStage:
    """The stage as a class of Ray Data: made once in each of its processes.

    Args:
        output: Address of the output, which has the plan.
        preprocessing: What the encoder expects.
        columns: Of Parquet inputs.
        max_pixels: Most pixels at which a picture is decoded.
        deaths: The actor that counts deaths.
    """

    def __init__(
        self,
        output: str,
        preprocessing: Preprocessing,
        columns: Columns,
        max_pixels: int,
        deaths: Any,
    ) -> None:
        torch.set_num_threads(1)
        self._store = Store(output)
        self._preprocessing, self._max_pixels = preprocessing, max_pixels
        self._reader, self._deaths = PictureReader(columns), deaths

    def __call__(self, run: pa.Table) -> Iterator[pa.Table]:
        """Decode some neighbouring blocks.

        Args:
            run: One row, with `blocks`.

        Yields:
            A row for each block, always in this order: Ray repeats the call if its process ends.
        """
        blocks: list[int] = run.column("blocks")[0].as_py()
        watched = Watched(self._deaths, blocks[0])
        for block, entries in zip(blocks, read_blocks(self._store, blocks), strict=True):
            yield decode_block(
                block, entries, self._reader, self._preprocessing, self._max_pixels, watched
            ).to_row()
        watched.end()
