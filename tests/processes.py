"""Several processes that work together, started as torchrun starts them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(ranks: int, work: Callable[[int], None], log: Path) -> list[int]:
    """Fork processes that do `work(rank)`; starting Python would take seconds.

    Returns:
        Their ids, by rank. What they print is in the folder `log`.
    """
    port = free_port()
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            torch.set_num_threads(1)  # a fork has none of the threads of its parent
            names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
            sizes = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "1"}
            os.environ |= {k: str(v) for k, v in (names | sizes | address).items()}
            with (log / f"rank-{rank}.log").open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(each, "w", closefd=False) for each in (1, 2))
            try:
                work(rank)
                status = 0
            except BaseException:  # noqa: B036 - a fork must not go on as the test
                traceback.print_exc()
                status = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        children.append(child)
    return children


def together(ranks: int, work: Callable[[int], None], log: Path, seconds: float = 120) -> None:
    """Do `work(rank)` in so many processes, all of which must end well in this time.

    When one fails the others are killed, as torchrun does: they would wait for it.
    """
    log.mkdir(parents=True, exist_ok=True)
    running = {child: rank for rank, child in enumerate(start(ranks, work, log))}
    end, failed = time.monotonic() + seconds, []
    while running and not failed:
        for child, rank in list(running.items()):
            found, status = os.waitpid(child, os.WNOHANG)
            if status or (not found and time.monotonic() > end):
                failed.append(rank)
            if found:
                del running[child]
        time.sleep(0.02)
    for child in running:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = "\n".join(f"rank {n}:\n{(log / f'rank-{n}.log').read_text()[-3000:]}" for n in failed)
    assert not failed, said
