"""Which captions make a batch: their order in an epoch, and the share of each device.

A batch of `train.batch_size` captions is split over all devices, so that with any number of devices
the same captions make an optimiser step, and an epoch has each of them once.

Length bucketing: padding is computed like a word, and a batch is as long as its longest caption.
So within a window of some batches captions of like length are put together, and the batches of
the window are shuffled. A batch is then less mixed than a random one; a small window bounds that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one device gets.

    Attributes:
        rank: Number of the device among all devices, from 0.
        devices: Number of devices.
    """

    rank: int = 0
    devices: int = 1

    def of(self, batch: np.ndarray) -> np.ndarray:
        """This device's captions of a batch, one slice; the shares differ by one at most."""
        return np.array_split(batch, self.devices)[self.rank]


ALONE = Share()


class OrderedBatches(Sampler[list[int]]):
    """Batches of caption numbers in file order.

    Args:
        count: Number of captions, N.
        batch_size: Captions a batch, those of all devices together.
        share: The part of every batch that is this device's.

    Raises:
        Refusal: There are more devices than captions, or than captions of a batch.
    """

    def __init__(self, count: int, batch_size: int, share: Share = ALONE) -> None:
        for name, size in (("train.batch_size", batch_size), ("number of captions", count)):
            if size < share.devices:
                raise Refusal(
                    f"{name} is {size}, which {share.devices} devices cannot share; set "
                    f"train.trainer.devices (times num_nodes) to at most {size}"
                )
        self.count = count
        self.batch_size = batch_size
        self.share = share

    def __len__(self) -> int:
        """Number of batches.

        A last batch with fewer captions than devices would leave a device without one. It is then
        joined to the batch before it.
        """
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest >= self.share.devices or (rest > 0 and whole == 0))

    def __iter__(self) -> Iterator[list[int]]:
        """This device's captions of each batch."""
        order, batches = self.order(), len(self)
        for number in range(batches):
            end = len(order) if number == batches - 1 else (number + 1) * self.batch_size
            yield self.share.of(order[number * self.batch_size : end]).tolist()

    def order(self) -> np.ndarray:
        """Caption numbers in the order of the batches, integers [N]."""
        return np.arange(self.count, dtype=np.min_scalar_type(self.count))


class ShuffledBatches(OrderedBatches):
    """Batches of caption numbers: each caption once an epoch, in random order.

    The order depends on seed and epoch only, so a resumed run sees the batches that it would have
    seen without the interruption, and all devices shuffle alike.

    Args:
        owners: Row of each caption's image, integers [N], ascending.
        batch_size: Captions a batch, those of all devices together.
        seed: Seed of the order.
        together: Captions of an image that follow one another, at most.
        lengths: Tokens of each caption, integers [N], for `window`.
        window: Batches in which captions are put together by length; 0 mixes all lengths.
        share: The part of every batch that is this device's.
    """

    def __init__(
        self,
        owners: np.ndarray,
        batch_size: int,
        seed: int,
        together: int = 1,
        lengths: np.ndarray | None = None,
        window: int = 0,
        share: Share = ALONE,
    ) -> None:
        super().__init__(len(owners), batch_size, share)
        self.owners = owners
        self.seed = seed
        self.together = together
        self.lengths = lengths
        self.window = window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def order(self) -> np.ndarray:
        """Caption numbers in the order of this epoch.

        A method of its own, so that its large temporary arrays are freed before the first batch.
        """
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.owners))
        order = order[np.argsort(self.owners[order], kind="stable")]  # those of an image are random
        _, first, counts = np.unique(self.owners, return_index=True, return_counts=True)
        turn = np.arange(len(order)) - np.repeat(first, counts)  # 0, 1, … in each image
        group = np.cumsum(turn % self.together == 0) - 1
        place = random.permutation(group[-1] + 1)[group]
        by_place = np.argsort(place, kind="stable")
        order = order[by_place]
        if self.window:
            order = self._by_length(order, place[by_place], random)
        return order.astype(np.min_scalar_type(len(order)))

    def _by_length(
        self, order: np.ndarray, group: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """The order with captions of like length side by side in every window.

        Args:
            order: Caption numbers [N].
            group: Number of each one's group, ascending [N]; a group of captions of an image stays
                together and counts as long as its longest.
            random: Of this epoch.
        """
        assert self.lengths is not None
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        longest = np.maximum.reduceat(self.lengths[order], starts)
        window = starts // (self.window * self.batch_size)
        sorted_groups = np.lexsort((longest, window))  # by window, then by length
        sizes = np.diff(starts, append=len(order))[sorted_groups]
        within = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[np.repeat(starts[sorted_groups], sizes) + within]
        whole = len(order) // self.batch_size  # a last batch that is smaller stays the last
        batch = np.arange(whole)
        batch = batch[np.lexsort((random.random(whole), batch // self.window))]
        mixed = order[: whole * self.batch_size].reshape(whole, self.batch_size)[batch]
        return np.concatenate([mixed.flatten(), order[whole * self.batch_size :]])
