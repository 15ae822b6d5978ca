"""A feature file: every image of a data set encoded once.

    DIR/features-00000.npy   [n, *shape], the first rows; more in -00001.npy and so on; float32, or
                             float16 for patches, of which there are many
    DIR/ids.npy              int64 [N], the image id of each row, ascending
    DIR/encoder.json         which encoder and preprocessing made it

The rows lie in several files (shards), so that no file is larger than a disk or a download takes
well; readers see one array. `training.encoding.feature_shards` writes it.

A captioner only understands the features of the encoder it was trained on, so whoever loads a
file says which encoder he means, and another's is refused.
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
    """Which encoder, down to its weights, and which pixels it was given.

    Attributes:
        name: Hugging Face name or folder; for people only, it takes no part in comparisons.
        sha256: Of the weights of the image tower.
        shape: Of one image's feature: (D,) when pooled, (P, D) for its patches.
        preprocessing: How images became pixels.
        kind: `pooled` or `patches`; a file that does not say is from before there were patches.
    """

    name: str = dataclasses.field(compare=False)
    sha256: str
    shape: tuple[int, ...]
    preprocessing: Preprocessing
    kind: str = "pooled"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers on disk; readers get float32."""
        return np.dtype("<f2" if self.kind == "patches" else "<f4")

    def to_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {**dataclasses.asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderIdentity:
        """What `to_dict` wrote."""
        preprocessing = Preprocessing.from_dict(fields["preprocessing"])
        return cls(**{**fields, "shape": tuple(fields["shape"]), "preprocessing": preprocessing})


def shard_file(folder: Path, number: int) -> Path:
    """Where a shard of a feature file is."""
    return folder / f"features-{number:05d}.npy"


class FeatureRows:
    """The rows of several .npy files as one array; memory-mapped, so it costs what is touched.

    Args:
        files: [n, *shape] each, in the order of the rows; at least one.

    Attributes:
        shape: (N, *shape).
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
            IndexError: A row is negative (an image without a feature) or behind the last.
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
            here = shard_of == number
            found[here] = self._shards[number][flat[here] - self._starts[number]]
        return found.reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows in memory, for NumPy."""
        return self[:].astype(dtype or np.float32, copy=False)


class FeatureFile:
    """A feature file opened for reading; costs memory for what is touched.

    Attributes:
        features: float32 [N, *shape], memory-mapped; `features[rows]` reads some.
        ids: int64 [N], ascending.
        encoder: Who made it.
    """

    def __init__(self, folder: str | Path, encoder: EncoderIdentity | None = None) -> None:
        """Open a file; refuse it if it is not from this encoder (None accepts any)."""
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
            raise Refusal(f"{folder} is no feature file: {error}") from None
        expected = (len(self.ids), *self.encoder.shape)
        if self.features.shape != expected:
            raise Refusal(
                f"{folder}: features are {self.features.shape}, ids and encoder.json say "
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
        """Row of each image id, -1 for images left out; int64 [len(ids)]."""
        return self._index.places(ids)
