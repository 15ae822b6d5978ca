"""Several processes that encode a data set together, as torchrun starts them.

Each process (rank) encodes shards of its own; the first one assembles the file. They exchange a few
words only (gloo, on the CPU), so it makes no difference what device each encodes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from torch import distributed

from model.refusal import Refusal

Value = TypeVar("Value")
#: How long a process waits for the slowest one. One that has died is noticed at once.
PATIENCE = timedelta(days=30)
#: Variables of torchrun, and their values without it.
_ALONE = {"RANK": 0, "WORLD_SIZE": 1}


class Ranks:
    """The processes of this run.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of the processes.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count

    def from_first(self, value: Value) -> Value:
        """The value that the first process gives; those of the others are not read.

        Raises:
            Refusal: Another process has ended.
        """
        if self.count == 1:
            return value
        found = [value]
        try:
            distributed.broadcast_object_list(found, src=0)
        except RuntimeError as error:
            raise _ended(self.rank) from error
        return found[0]

    def wait_for_all(self) -> None:
        """Return when all processes have come here.

        Raises:
            Refusal: Another process has ended before.
        """
        if self.count == 1:
            return
        try:
            distributed.barrier()
        except RuntimeError as error:
            raise _ended(self.rank) from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes of this run, by the variables that torchrun sets; else this one alone."""
    rank, count = (int(os.environ.get(name, alone)) for name, alone in _ALONE.items())
    if count == 1:
        yield Ranks(0, 1)
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank, count)
    finally:
        distributed.destroy_process_group()


def _ended(rank: int) -> Refusal:
    return Refusal(
        f"process {rank} waited for another process of this run, which has ended; see what that "
        "one printed, and run the command again: complete shards are kept"
    )
