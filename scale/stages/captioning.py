"""The second stage: captions the decoded pictures of a block and writes them, whole.

It uses the handler's own batches and passes, so captions and errors are those of the servers.
"""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import torch

from handler.caption_batch import caption_images
from handler.parallel_passes import ParallelPasses
from handler.replies.caption_reply import picture_fields
from handler.request_result import ImageResult
from handler.requests.caption_request import Extras
from model.artifact import Artifact
from model.image.preprocessing import normalized
from model.options import GenerationOptions
from model.programs.load import load_artifact
from scale.output.parts import write_block
from scale.output.rows import CaptionRow, counts_of, table_of_rows
from scale.output.store import Store
from scale.picture_error import PictureError
from scale.stages.blocks import DecodedBlock
from scale.stages.deaths import check_attempts


class Captioner:
    """Captions decoded blocks in this process.

    Args:
        artifact: The captioner.
        options: How to caption.
        extras: Whether features are wanted.
        threads: Threads of torch.
        images_per_pass: Most images in one pass; up to `threads` passes run at a time.
    """

    def __init__(
        self,
        artifact: Artifact,
        options: GenerationOptions,
        extras: Extras,
        threads: int,
        images_per_pass: int,
    ) -> None:
        self.artifact, self._options, self._extras = artifact, options, extras
        self._images_per_pass = images_per_pass
        torch.set_num_threads(threads)
        self._passes = ParallelPasses(threads)

    def caption(self, decoded: DecodedBlock) -> list[CaptionRow]:
        """A row for each picture of a block, in its order."""
        assert isinstance(decoded.pixels, torch.Tensor)
        pixels = iter(normalized(decoded.pixels, self.artifact.preprocessing))
        images = [
            ImageResult(next(pixels), self._options, warnings=list(warnings))
            for error, warnings in zip(decoded.errors, decoded.warnings, strict=True)
            if error is None
        ]
        caption_images(self.artifact, images, self._images_per_pass, math.inf, self._passes)
        captioned = iter(images)
        return [
            self._row(id_, next(captioned)) if error is None else CaptionRow(id_, error=error)
            for id_, error in zip(decoded.ids, decoded.errors, strict=True)
        ]

    def _row(self, id_: str, image: ImageResult) -> CaptionRow:
        if image.failure is not None:
            return CaptionRow(id_, error=PictureError(image.failure.code, image.failure.message))
        reply = picture_fields(image, self._extras)
        feature = reply.pop("features", None)
        if feature is None:
            return CaptionRow(id_, reply=reply)
        data = base64.b64decode(feature["data"])
        return CaptionRow(id_, reply=reply, feature=data, shape=feature["shape"])


class CaptionStage:
    """The stage as a class of Ray Data: made once in each of its processes.

    Args:
        output: Address of the output.
        artifact: Reference to the files of the artifact: name -> bytes.
        options: How to caption.
        extras: Whether features are wanted.
        threads: Threads of torch.
        images_per_pass: Most images in one pass.
        version: Of the captioner, for the rows.
        deaths: The actor that counts deaths.
        device: Where the captioner runs, `cpu` or `cuda:0`.
    """

    def __init__(
        self,
        output: str,
        artifact: Any,
        options: GenerationOptions,
        extras: Extras,
        threads: int,
        images_per_pass: int,
        version: str,
        deaths: Any,
        device: str,
    ) -> None:
        torch.set_num_threads(threads)  # loading packs as many layers at a time
        loaded = load_files(ray.get(artifact), torch.device(device))
        self._captioner = Captioner(loaded, options, extras, threads, images_per_pass)
        self._side = loaded.preprocessing.size
        self._store, self._version, self._deaths = Store(output), version, deaths

    def __call__(self, row: pa.Table) -> pa.Table:
        """Caption a block and write it.

        Args:
            row: One row of `scale.stages.blocks`.

        Returns:
            What was written: `block`, `rows`, and `codes`, the code of each error.
        """
        decoded = DecodedBlock.of_row(row, self._side)
        work = ("caption", decoded.block)
        check_attempts(self._deaths, work, f"captioning block {decoded.block}")
        rows = self._captioner.caption(decoded)
        counts = counts_of(rows)
        table = table_of_rows(rows, self._version)
        write_block(self._store, decoded.block, table, counts)
        ray.get(self._deaths.end.remote(work))
        codes = [code for code, count in counts.errors.items() for _ in range(count)]
        return pa.table(
            {
                "block": pa.array([decoded.block]),
                "rows": pa.array([counts.rows]),
                "codes": pa.array([codes], pa.list_(pa.string())),
            }
        )


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of an artifact folder, for `load_files` in other processes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def load_files(files: Mapping[str, bytes], device: torch.device) -> Artifact:
    """Load an artifact from the bytes of its files.

    Raises:
        Refusal: A file is damaged, or the device cannot run it.
    """
    with tempfile.TemporaryDirectory(prefix="clipcap-") as folder:
        for name, data in files.items():
            file = Path(folder) / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        # Its files may be removed then: what it needs stays open.
        return load_artifact(folder) if device.type == "cpu" else Artifact.load(folder, device)
