"""Which pictures make a batch, for each rank, in each epoch, and after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from model.refusal import Refusal


class SharedBatches(Sampler[list[int]]):
    """This rank's part of each batch: lists of rows.

    Shuffled, each picture comes once an epoch, in an order that depends on seed and epoch only.
    The batches of all ranks together are those that one process with W times the batch size has.
    They have one size, so the pictures that are left over are left out of the epoch. In order,
    every picture comes once, and each rank has a run of neighbouring ones.

    Args:
        pictures: Number of pictures, N.
        batch_size: Of each rank; smaller if there are too few pictures for it.
        shuffled: In random order, for training; else in order, for validation.
        seed: Seed of the order.
        rank: Number of this process, from 0.
        ranks: Number of the processes, W.

    Attributes:
        skip: Batches of the next pass that are left out, because an interrupted run has had them.

    Raises:
        Refusal: There are fewer pictures than processes.
    """

    def __init__(
        self,
        pictures: int,
        batch_size: int,
        shuffled: bool,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if pictures < ranks:
            raise Refusal(
                f"a split has {pictures} pictures for {ranks} processes; each needs one: lower "
                "clip.trainer.devices"
            )
        self.pictures = pictures
        self.size = min(batch_size, pictures // ranks) if shuffled else batch_size
        self.shuffled = shuffled
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        if self.shuffled:
            return self.pictures // (self.size * self.ranks)
        return -(-len(self._run()) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch, those of `skip` left out."""
        skip, self.skip = self.skip, 0
        if self.shuffled:
            rows = np.random.default_rng((self.seed, self.epoch)).permutation(self.pictures)
            start, step = self.rank * self.size, self.ranks * self.size
        else:
            rows, start, step = self._run(), 0, self.size
        for number in range(skip, len(self)):
            first = start + number * step
            yield rows[first : first + self.size].tolist()

    def _run(self) -> np.ndarray:
        """This rank's rows where the pictures are in order."""
        return np.array_split(np.arange(self.pictures), self.ranks)[self.rank]


class ResumableLoader(DataLoader[Any]):
    """A loader whose place in the epoch is in Lightning's checkpoints.

    Args:
        dataset: Gives a batch by the list of its rows.
        batches: The lists.
    """

    def __init__(self, dataset: Any, batches: SharedBatches) -> None:
        super().__init__(dataset, sampler=batches, batch_size=None)
        self.batches = batches
        self.given = 0

    def __iter__(self) -> Any:
        """The batches of an epoch, from the place of `load_state_dict`."""
        self.given = self.batches.skip
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out as many in the next pass; none if that was the whole epoch."""
        self.batches.skip = state["given"] % len(self.batches)


class PlaceInEpoch(pl.Callback):
    """Puts a loader's place in the epoch into the checkpoints of a run.

    Lightning keeps the state of such loaders too, but gives it back only to those that it has not
    seen before it restores a run; and the learning rate's schedule asks for their length earlier.

    Args:
        loader: The loader of the training.
    """

    def __init__(self, loader: ResumableLoader) -> None:
        self.loader = loader

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return self.loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at that place."""
        self.loader.load_state_dict(state_dict)
