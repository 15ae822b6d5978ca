"""A feature file: every image of a data set encoded once.

    DIR/features.npy   float32 [N, *shape], memory-mapped when read
    DIR/ids.npy        int64 [N], the image id of each row, ascending
    DIR/encoder.json   which encoder and preprocessing made it

A captioner only understands the features of the encoder it was trained on, so whoever loads a
file says which encoder he means, and another's is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from model.image import Preprocessing
from model.refusal import Refusal
from model.whole_folder import whole_folder


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

    def to_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {**dataclasses.asdict(self), "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderIdentity:
        """What `to_dict` wrote."""
        preprocessing = Preprocessing.from_dict(fields["preprocessing"])
        return cls(**{**fields, "shape": tuple(fields["shape"]), "preprocessing": preprocessing})


class FeatureWriter:
    """Writes a feature file row by row; `writing_features` gives one.

    Args:
        folder: An empty folder.
        encoder: Who makes the features.
        capacity: Rows at most; memory does not grow with them.
    """

    def __init__(self, folder: Path, encoder: EncoderIdentity, capacity: int) -> None:
        self.folder = folder
        self.encoder = encoder
        self.ids: list[int] = []
        self.rows = self._map("features.npy", capacity)

    def add(self, ids: Sequence[int], features: np.ndarray) -> None:
        """Append features [B, *shape] of these images; ids ascend over all calls."""
        start = len(self.ids)
        self.rows[start : start + len(ids)] = features
        self.ids.extend(ids)

    def finish(self) -> None:
        """Cut the file to the rows that came, and say which they are."""
        if len(self.ids) < len(self.rows):
            cut = self._map("cut.npy", len(self.ids))
            for start in range(0, len(cut), 4096):
                cut[start : start + 4096] = self.rows[start : min(start + 4096, len(cut))]
            self.rows = cut
            (self.folder / "cut.npy").rename(self.folder / "features.npy")
        self.rows.flush()
        np.save(self.folder / "ids.npy", np.array(self.ids, np.int64))
        fields = json.dumps(self.encoder.to_dict(), indent=2) + "\n"
        (self.folder / "encoder.json").write_text(fields)

    def _map(self, name: str, rows: int) -> np.memmap:
        return open_memmap(self.folder / name, "w+", np.float32, (rows, *self.encoder.shape))


@contextmanager
def writing_features(
    folder: str | Path, encoder: EncoderIdentity, capacity: int
) -> Iterator[FeatureWriter]:
    """A writer whose file is put in place of an older one when the block ends well."""
    with whole_folder(folder) as partial:
        writer = FeatureWriter(partial, encoder, capacity)
        yield writer
        writer.finish()


class FeatureFile:
    """A feature file opened for reading; costs memory for what is touched.

    Attributes:
        features: float32 [N, *shape], memory-mapped.
        ids: int64 [N], ascending.
        encoder: Who made it.
    """

    def __init__(self, folder: str | Path, encoder: EncoderIdentity | None = None) -> None:
        """Open a file; refuse it if it is not from this encoder (None accepts any)."""
        folder = Path(folder)
        try:
            fields = json.loads((folder / "encoder.json").read_text())
            self.encoder = EncoderIdentity.from_dict(fields)
            self.features = np.load(folder / "features.npy", mmap_mode="r")
            self.ids = np.load(folder / "ids.npy")
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
        wanted = np.asarray(ids, np.int64)
        places = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        return np.where(self.ids[places] == wanted, places, -1)
