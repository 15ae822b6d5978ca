"""Feature files are written shard by shard, and a run that was killed goes on where it was.

    OUT.partial/features/features-00000.npy   a whole shard, as it will stand in OUT
    OUT.partial/shard-00000.json              what it was made of, its image ids, its broken images
    OUT.partial/lock                          held by the one run that writes

A shard is written under another name, forced onto the disk and renamed, and so is its record
after it: where there is a record, there is a whole shard. What stands in a shard follows from its
own images and settings alone, no batch reaches over its end, so it makes no difference which run
wrote it. The record says what the shard was made of (encoder, preprocessing, batch size, the
images with their sizes and times of change); a shard that was made of something else is made anew,
the others are kept. When all are there, the folder with them becomes OUT in one step; a run that is
killed after that had finished already, and the next one starts from the beginning.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from model.refusal import Refusal
from model.whole_folder import check_replaceable, locked, remove_locked
from training.encoding.feature_file import EncoderIdentity, shard_file

#: What a shard is made of, by name; JSON.
Ingredients = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard that is whole.

    Attributes:
        ids: int64 [n], the image id of each row.
        broken: What was wrong with each image that was left out.
    """

    ids: np.ndarray
    broken: list[str]


class ShardRows:
    """The rows of one shard on their way to the disk; `FeatureWriter.shard` gives one.

    Attributes:
        broken: What was wrong with each image that is left out; the caller adds to it.
    """

    def __init__(self, file: BinaryIO, encoder: EncoderIdentity) -> None:
        self.broken: list[str] = []
        self.ids: list[int] = []
        self._file = file
        self._shape = encoder.shape
        self._dtype = encoder.dtype
        self._header()

    def add(self, ids: Sequence[int], features: np.ndarray) -> None:
        """Append features [B, *shape] of these images; ids ascend over all calls and shards.

        Raises:
            Refusal: A number is none, or too large for the file.
        """
        if features.shape != (len(ids), *self._shape):
            raise ValueError(f"{len(ids)} features of {self._shape} expected, got {features.shape}")
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(features, self._dtype)
        if not np.isfinite(kept).all():
            worst = float(np.abs(features).max())
            raise Refusal(
                f"the encoder's features reach {worst:g}, which {self._dtype.name} cannot hold (at "
                f"most {np.finfo(self._dtype).max:g}); check its weights, or use pooled features"
            )
        self._file.write(kept.tobytes())
        self.ids.extend(ids)

    def finish(self) -> None:
        """Say in the header how many rows came; NumPy keeps room in it for the number."""
        end = self._file.tell()
        self._file.seek(0)
        self._header()
        rows = end - self._file.tell()
        if rows != self._dtype.itemsize * len(self.ids) * int(np.prod(self._shape)):
            raise ValueError(f"the header of {len(self.ids)} rows is not as long as that of none")

    def _header(self) -> None:
        fields = {
            "descr": self._dtype.str,
            "fortran_order": False,
            "shape": (len(self.ids), *self._shape),
        }
        npy.write_array_header_1_0(self._file, fields)


class FeatureWriter:
    """Writes the shards that are missing; `writing_features` gives one.

    Args:
        work: The folder of the run.
        encoder: Who makes the features.
        made_of: Of each shard in order; what an earlier run left is kept where it says the same.

    Attributes:
        whole: Number -> shard, of those that need not be made.
        changed: Names of ingredients for which shards of an earlier run were thrown away.
    """

    def __init__(
        self, work: Path, encoder: EncoderIdentity, made_of: Sequence[Ingredients]
    ) -> None:
        self.whole: dict[int, Shard] = {}
        self.changed: set[str] = set()
        self._work = work
        self._features = work / "features"
        self._encoder = encoder
        self._made_of = [json.loads(json.dumps(own)) for own in made_of]
        self._features.mkdir(exist_ok=True)
        for number in range(len(made_of)):
            self._take_up(number)
        kept = {shard_file(self._features, number) for number in self.whole}
        for file in set(self._features.iterdir()) - kept:
            file.unlink()

    @contextmanager
    def shard(self, number: int) -> Iterator[ShardRows]:
        """Rows of a shard, which is whole when the block ends well and was never there else."""
        aside = self._work / "shard.aside"
        with aside.open("wb") as file:
            rows = ShardRows(file, self._encoder)
            yield rows
            rows.finish()
            _force(file)
        _rename(aside, shard_file(self._features, number))
        record = {"made_of": self._made_of[number], "ids": rows.ids, "broken": rows.broken}
        with aside.open("wb") as file:
            file.write(json.dumps(record).encode())
            _force(file)
        _rename(aside, self._record(number))
        self.whole[number] = Shard(np.array(rows.ids, np.int64), rows.broken)

    def finish(self, target: Path) -> None:
        """Put the feature file in place of an older one; all shards are whole."""
        ids = [self.whole[number].ids for number in range(len(self._made_of))]
        np.save(self._features / "ids.npy", np.concatenate(ids))
        fields = json.dumps(self._encoder.to_dict(), indent=2) + "\n"
        (self._features / "encoder.json").write_text(fields)
        if target.exists():
            shutil.rmtree(self._work / "old", ignore_errors=True)
            target.rename(self._work / "old")
        _rename(self._features, target)

    def _take_up(self, number: int) -> None:
        """Keep a whole shard of an earlier run, if it is what this run would write."""
        record, file = self._record(number), shard_file(self._features, number)
        if not record.exists():
            return
        try:
            found = json.loads(record.read_text())
            made_of, ids, broken = (found[name] for name in ("made_of", "ids", "broken"))
        except (ValueError, TypeError, KeyError):
            record.unlink()  # damaged; the shard is made anew
            return
        wanted = self._made_of[number]
        changed = {name for name in wanted if made_of.get(name) != wanted[name]}
        if changed or not file.exists():
            self.changed |= changed
            record.unlink()
        else:
            self.whole[number] = Shard(np.array(ids, np.int64), broken)

    def _record(self, number: int) -> Path:
        return self._work / f"shard-{number:05d}.json"


@contextmanager
def writing_features(
    folder: str | Path, encoder: EncoderIdentity, made_of: Sequence[Ingredients]
) -> Iterator[FeatureWriter]:
    """A writer whose file is put in place of an older one when the block ends well.

    When it fails or its process is killed, the older file stays, and the whole shards wait in
    FOLDER.partial for the next run.

    Raises:
        Refusal: Another run writes there, or the folder holds something else.
    """
    folder = Path(os.path.realpath(folder))  # what a link leads to, not the link, is replaced
    check_replaceable(folder, "encoder.json")
    work = folder.with_name(folder.name + ".partial")
    with locked(work):
        writer = FeatureWriter(work, encoder, made_of)
        yield writer
        writer.finish(folder)
        remove_locked(work)


def _force(file: BinaryIO) -> None:
    """What was written is on the disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    """Rename, and have the name on the disk before anything else is written."""
    source.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
