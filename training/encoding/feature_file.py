"""A feature file: every image of a data set encoded once.

    DIR/features-00000.npy   [n, *shape], the first rows; further rows in -00001.npy and so on;
                             float32, or float16 for patches, which take much more room
    DIR/ids.npy              int64 [N], the image id of each row, ascending
    DIR/encoder.json         the encoder and the preprocessing that made it

The rows are divided between several files (shards), because very large files are inconvenient to
copy and to resume. `FeatureRows` reads them as one array, and `training.encoding.feature_shards`
writes them.

A captioner works only with features of the encoder that it was trained with. So the reader of a
file gives the encoder it expects, and the file of another encoder is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from model.image.preprocessing import Preprocessing
from model.refusal import Refusal
from training.data.id_index import IdIndex


@dataclasses.dataclass(frozen=True)
class EncoderIdentity:
    """An encoder, its weights included, and the preprocessing of its images.

    Attributes:
        name: Hugging Face name or folder; for messages only, two identities may differ in it.
        sha256: Of the weights of the image encoder, in hex.
        shape: Of one image's feature: (D,) if pooled, (P, D) for its patches.
        preprocessing: How images became pixels.
        kind: `pooled` or `patches`. Older files have no kind; they hold pooled features.
    """

    name: str = dataclasses.field(compare=False)
    sha256: str
    shape: tuple[int, ...]
    preprocessing: Preprocessing
    kind: str = "pooled"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers on disk; they are read as float32."""
        return np.dtype("<f2" if self.kind == "patches" else "<f4")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, for encoder.json."""
        return {**dataclasses.asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderIdentity:
        """The identity that `to_dict` has written.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is unknown or has another type.
        """
        preprocessing = Preprocessing.from_dict(fields["preprocessing"])
        return cls(**{**fields, "shape": tuple(fields["shape"]), "preprocessing": preprocessing})


def shard_file(folder: Path, number: int) -> Path:
    """File of shard `number`, counted from 0, in the folder of a feature file."""
    return folder / f"features-{number:05d}.npy"


class FeatureRows:
    """The rows of several .npy files, read as one array.

    The files are memory-mapped, so only the rows that are used are read from disk.

    Args:
        files: At least one, each with an array [n, *shape], in the order of the rows.

    Attributes:
        shape: (N, *shape).

    Raises:
        ValueError: The arrays do not hold floating-point numbers, or differ in shape.
        FileNotFoundError: A file is missing.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._shards = [np.load(file, mmap_mode="r") for file in files]
        shapes = {shard.shape[1:] for shard in self._shards}
        if wrong := [str(shard.dtype) for shard in self._shards if shard.dtype.kind != "f"]:
            raise ValueError(f"its shards hold {wrong[0]}, not floating-point numbers")
        if len(shapes) > 1:
            raise ValueError(f"its shards have rows of different shapes, {sorted(shapes)}")
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *shapes.pop())

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: ArrayLike | slice) -> np.ndarray:
        """A copy of these rows, float32 [*rows.shape, *shape].

        Raises:
            IndexError: A row is negative (an image without a feature) or N or more.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = np.asarray(rows, np.int64)
        flat = wanted.reshape(-1)
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"rows {flat.min()} to {flat.max()} of {len(self)}")
        found = np.empty((len(flat), *self.shape[1:]), np.float32)
        shard_of = np.searchsorted(self._starts, flat, side="right") - 1
        for number in np.unique(shard_of):
            in_shard = shard_of == number
            found[in_shard] = self._shards[number][flat[in_shard] - self._starts[number]]
        return found.reshape(*wanted.shape, *self.shape[1:])


class FeatureFile:
    """A feature file, opened for reading.

    Args:
        folder: The feature file.
        encoder: The expected encoder; None accepts any.

    Attributes:
        features: [N, *shape]; `features[rows]` reads rows as float32.
        ids: The image id of each row, int64 [N], ascending.
        encoder: The encoder that made it.

    Raises:
        Refusal: It is not a feature file, is damaged, or is of another encoder.
    """

    def __init__(self, folder: str | Path, encoder: EncoderIdentity | None = None) -> None:
        folder = Path(folder)
        try:
            fields = json.loads((folder / "encoder.json").read_text())
            self.encoder = EncoderIdentity.from_dict(fields)
            files = sorted(folder.glob("features-*.npy"))
            self.features = FeatureRows(files or [shard_file(folder, 0)])
            self.ids = np.load(folder / "ids.npy")
            if self.ids.dtype != np.int64 or self.ids.ndim != 1 or (np.diff(self.ids) <= 0).any():
                raise ValueError("ids.npy does not hold ascending image ids, int64 [N]")
        except FileNotFoundError as error:
            raise Refusal(
                f"{error.filename} is missing; encode the images first: python -m training.features"
            ) from None
        except (ValueError, TypeError, KeyError, EOFError) as error:
            raise Refusal(f"{folder} is not a feature file: {error}") from None
        expected = (len(self.ids), *self.encoder.shape)
        if self.features.shape != expected:
            raise Refusal(
                f"{folder}: features are {self.features.shape}, ids and encoder.json give "
                f"{expected}; encode the images again"
            )
        self._index = IdIndex(self.ids)
        if encoder is not None and encoder.kind != self.encoder.kind:
            raise Refusal(
                f"{folder} holds {self.encoder.kind} features, but features.kind is "
                f"{encoder.kind}; encode the images again: python -m training.features "
                f"features.kind={encoder.kind}"
            )
        if encoder is not None and encoder != self.encoder:
            raise Refusal(
                f"{folder} was made by {self.encoder.name} "
                f"({self.encoder.sha256[:12]}…, {self.encoder.preprocessing}), not by "
                f"{encoder.name} ({encoder.sha256[:12]}…, {encoder.preprocessing}); "
                "encode the images again: python -m training.features"
            )

    def rows(self, ids: Sequence[int]) -> np.ndarray:
        """Row of each image id, int64 [len(ids)]; -1 for an image without a feature."""
        return self._index.rows(ids)
