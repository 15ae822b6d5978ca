"""Writes a feature file shard by shard, and resumes after a kill with the first missing shard.

    OUT.partial/features/features-00000.npy   a complete shard, as it will be in OUT
    OUT.partial/shard-00000.json              its record: what it was made of, its image ids, and
                                              the faults of its broken images
    OUT.partial/lock                          locked by the run that writes

A shard is written to a temporary file, flushed to the disk, and renamed; then its record is written
in the same way. So where there is a record, the shard is complete. Several processes may write
shards at a time, if they share the folder: one has the lock and assembles the file, and the others
write the shards that it leaves to them.

The bytes of a shard depend only on its own images and the settings, because no batch has images of
two shards. So it makes no difference which run wrote a shard. The record holds what it was made of
(encoder, preprocessing, batch size, and file name, size and time of change of each image). A shard
that was made of something else is written again; the others are kept.

When all shards are complete, their folder is renamed to OUT. After that rename nothing is left to
resume: the next run starts from the beginning.
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

#: What the bytes of a shard depend on: name -> value as JSON types.
Ingredients = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Shard:
    """The record of a complete shard.

    Attributes:
        ids: The image id of each row, int64 [n].
        broken: The fault of each image that was left out.
    """

    ids: np.ndarray
    broken: list[str]


class ShardRows:
    """Writes the rows of one shard; made by `FeatureWriter.shard`.

    Attributes:
        broken: The fault of each image that is left out; the caller appends to it.
    """

    def __init__(self, file: BinaryIO, encoder: EncoderIdentity) -> None:
        self.broken: list[str] = []
        self.ids: list[int] = []
        self._file = file
        self._shape = encoder.shape
        self._dtype = encoder.dtype
        self._header()

    def add(self, ids: Sequence[int], features: np.ndarray) -> None:
        """Append the features of some images.

        Args:
            ids: Ids of the images, [B]; ascending over all calls and shards.
            features: float [B, *shape].

        Raises:
            Refusal: A number is not finite, or too large for the type of the file.
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
        """Write the number of rows into the header, where NumPy leaves room for it."""
        end = self._file.tell()
        self._file.seek(0)
        self._header()
        rows = end - self._file.tell()
        if rows != self._dtype.itemsize * len(self.ids) * int(np.prod(self._shape)):
            raise ValueError(f"the header of {len(self.ids)} rows is not as long as that of 0 rows")

    def _header(self) -> None:
        fields = {
            "descr": self._dtype.str,
            "fortran_order": False,
            "shape": (len(self.ids), *self._shape),
        }
        npy.write_array_header_1_0(self._file, fields)


class FeatureWriter:
    """Writes the missing shards of a feature file; made by `writing_features`.

    A further process of the same run makes one itself, with `fresh=False`.

    Args:
        work: The folder OUT.partial.
        encoder: The encoder of the features.
        made_of: The ingredients of each shard, in order. A shard of an earlier run is kept if its
            record has the same ingredients.
        fresh: Look for shards of an earlier run, and remove what is of no use.

    Attributes:
        complete: Number -> record of each complete shard.
        changed: Names of the ingredients whose change made shards of an earlier run useless.
    """

    def __init__(
        self,
        work: Path,
        encoder: EncoderIdentity,
        made_of: Sequence[Ingredients],
        fresh: bool = True,
    ) -> None:
        self.complete: dict[int, Shard] = {}
        self.changed: set[str] = set()
        self._work = work
        self._features = work / "features"
        self._encoder = encoder
        self._made_of = [json.loads(json.dumps(each)) for each in made_of]  # as read back
        self._features.mkdir(exist_ok=True)
        if not fresh:
            return
        for number in range(len(made_of)):
            self._reuse(number)
        kept = {shard_file(self._features, number) for number in self.complete}
        for file in set(self._features.iterdir()) - kept:
            file.unlink()

    @contextmanager
    def shard(self, number: int) -> Iterator[ShardRows]:
        """Write a shard: the block adds the rows.

        The shard is complete when the block ends without an error. Otherwise nothing of it is kept.
        """
        temporary = self._work / f"shard-{number:05d}.temporary"
        with temporary.open("wb") as file:
            rows = ShardRows(file, self._encoder)
            yield rows
            rows.finish()
            _flush_to_disk(file)
        _rename_on_disk(temporary, shard_file(self._features, number))
        record = {"made_of": self._made_of[number], "ids": rows.ids, "broken": rows.broken}
        with temporary.open("wb") as file:
            file.write(json.dumps(record).encode())
            _flush_to_disk(file)
        _rename_on_disk(temporary, self._record(number))
        self.complete[number] = Shard(np.array(rows.ids, np.int64), rows.broken)

    def take_others(self) -> None:
        """Count in the shards that other processes of this run have written.

        Raises:
            Refusal: One is missing.
        """
        for number in set(range(len(self._made_of))) - self.complete.keys():
            self._reuse(number)
            if number not in self.complete:
                raise Refusal(
                    f"{self._record(number)} is missing, which another process of this run wrote; "
                    "all processes must see the same folder, and the pictures must not change "
                    "meanwhile: run the command again"
                )

    def finish(self, target: Path) -> None:
        """Replace `target` with the feature file; all shards must be complete."""
        ids = [self.complete[number].ids for number in range(len(self._made_of))]
        np.save(self._features / "ids.npy", np.concatenate(ids))
        fields = json.dumps(self._encoder.to_dict(), indent=2) + "\n"
        (self._features / "encoder.json").write_text(fields)
        if target.exists():
            shutil.rmtree(self._work / "old", ignore_errors=True)
            target.rename(self._work / "old")
        _rename_on_disk(self._features, target)

    def _reuse(self, number: int) -> None:
        """Keep a complete shard of an earlier run, if this run would write the same one."""
        record, file = self._record(number), shard_file(self._features, number)
        if not record.exists():
            return
        try:
            found = json.loads(record.read_text())
            made_of, ids, broken = (found[name] for name in ("made_of", "ids", "broken"))
        except (ValueError, TypeError, KeyError):
            record.unlink()  # damaged; the shard is written again
            return
        wanted = self._made_of[number]
        changed = {name for name in wanted if made_of.get(name) != wanted[name]}
        if changed or not file.exists():
            self.changed |= changed
            record.unlink()
        else:
            self.complete[number] = Shard(np.array(ids, np.int64), broken)

    def _record(self, number: int) -> Path:
        return self._work / f"shard-{number:05d}.json"


def target_and_work(folder: str | Path) -> tuple[Path, Path]:
    """The folder of a feature file, and the one where it is written before."""
    target = Path(os.path.realpath(folder))  # of a link, its target is replaced and not the link
    return target, target.with_name(target.name + ".partial")


@contextmanager
def writing_features(
    folder: str | Path, encoder: EncoderIdentity, made_of: Sequence[Ingredients]
) -> Iterator[FeatureWriter]:
    """A writer of a feature file, which replaces an older one when the block ends well.

    After an error or a kill the older file is unchanged, and the complete shards stay in
    FOLDER.partial for the next run.

    Args:
        folder: The feature file.
        encoder: The encoder of the features.
        made_of: The ingredients of each shard, in order.

    Raises:
        Refusal: Another run writes there, or the folder holds something else.
    """
    folder, work = target_and_work(folder)
    check_replaceable(folder, "encoder.json")
    with locked(work):
        writer = FeatureWriter(work, encoder, made_of)
        yield writer
        writer.finish(folder)
        remove_locked(work)


def _flush_to_disk(file: BinaryIO) -> None:
    """Return when everything that was written to the file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _rename_on_disk(source: Path, target: Path) -> None:
    """Rename a file or folder, and return when the new name is on the disk."""
    source.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
