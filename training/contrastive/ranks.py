"""What several processes of one training know of each other's batches.

Each process (rank) has a part of every batch. CLIP compares each image with all captions of the
whole batch (arXiv 2103.00020, section 2.3), so the features of all ranks are brought together. In
a training of one process every function here gives back what it was given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Number of the processes that train together, W; 1 without others."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def of_all_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks; gradients flow back to each rank's own.

    Args:
        rows: [B, D]; B is the same on every rank.

    Returns:
        [W * B, D].
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """The rows of all ranks; a row's gradient is the sum of those that the ranks compute for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """Rows [B, D] of each rank to [W * B, D]."""
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Gradients [W * B, D] to those of this rank's rows, [B, D]."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.chunk(world_size())[rank()]


def objects_of_all_ranks(own: Any) -> list[Any]:
    """An object of each rank, which may differ in size; tensors in it must be on the CPU."""
    if world_size() == 1:
        return [own]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, own)
    return found


def mean_over_all(mean: Tensor, count: Tensor) -> Tensor:
    """A loss whose average over the ranks is the mean over all of their entries.

    The averaging of gradients gives each rank the same weight, however many entries it has.

    Args:
        mean: Mean over this rank's entries, [].
        count: Number of them, [].
    """
    if world_size() == 1:
        return mean
    total = count.detach().to(mean.dtype, copy=True)
    distributed.all_reduce(total)
    return mean * count * world_size() / total
