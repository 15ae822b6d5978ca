"""Where the gateway finds TorchServe: a file that it reads, and the log in which it says so.

The contract is described in `gateway/reload.py`. The log is read, because `/metrics` of the gateway
may ask for a key, which nobody but its owner has.
"""

from __future__ import annotations

import json
import re
import signal
import time
import tomllib
from pathlib import Path

import psutil

from deploy import processes
from deploy.errors import ServeError
from deploy.torchserve import TorchServe


def addresses(server: TorchServe) -> dict[str, str]:
    """The addresses of a TorchServe, under the names of the gateway's settings."""
    return {"inference": server.rest, "management": server.management, "metrics": server.metrics}


def write(file: Path, server: TorchServe) -> None:
    """Write the addresses of a TorchServe into a file that the gateway reads.

    Args:
        file: It is replaced as a whole, so that the gateway never reads half of one.
        server: The TorchServe.
    """
    # A text of JSON is one of TOML too.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in addresses(server).items()]
    processes.replace_text(file, "".join(lines))


def read(file: Path) -> str:
    """The address for captions in a file that `write` wrote; empty if there is none.

    Args:
        file: The file.
    """
    try:
        return str(tomllib.loads(file.read_text())["inference"])
    except FileNotFoundError:
        return ""


def move(
    process: psutil.Process, file: Path, log: Path, server: TorchServe, timeout: float
) -> None:
    """Make a running gateway send its requests to another TorchServe from now on.

    Args:
        process: The gateway.
        file: What it reads.
        log: What it writes.
        server: The other TorchServe, which is ready.
        timeout: Seconds to wait until the gateway has moved.

    Raises:
        ServeError: It did not move, and stays where it was.
    """
    before = file.read_text()
    begin = log.stat().st_size
    write(file, server)
    try:
        process.send_signal(signal.SIGHUP)
        _wait_moved(process, log, begin, server.rest, time.monotonic() + timeout)
    except BaseException:  # Ctrl-C too: the file says where the gateway is
        processes.replace_text(file, before)
        if processes.runs(process):
            process.send_signal(signal.SIGHUP)
        raise


def wait_left(log: Path, address: str, timeout: float) -> None:
    """Wait until no request of the gateway is at a TorchServe that it was moved away from.

    Nothing is waited for if it never was there.

    Args:
        log: What the gateway writes.
        address: That of TorchServe's captions, such as `http://127.0.0.1:8080`.
        timeout: Seconds to wait.

    Raises:
        ServeError: Requests are still there.
    """
    deadline = time.monotonic() + timeout
    while True:
        # What comes after the last time that the gateway was moved to it, or started with it.
        _, moved, since = log.read_text(errors="replace").rpartition(_moved_to(address))
        if not moved or f" backend {address}: its last request has ended\n" in since:
            return
        if time.monotonic() > deadline:
            raise ServeError(f"requests of the gateway are still at {address} after {timeout:g} s")
        time.sleep(0.1)


def _wait_moved(
    process: psutil.Process, log: Path, begin: int, address: str, deadline: float
) -> None:
    """Return once the log says, from a position on, that the gateway has moved."""
    while True:
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode(errors="replace")
        if _moved_to(address) in said:
            return
        if refused := re.search(r" reload refused, [^:]*: (.*)\n", said):
            raise ServeError(f"the gateway did not move: {refused.group(1)}")
        if not processes.runs(process):
            raise ServeError(f"the gateway ended by itself; to start it: make serve (log: {log})")
        if time.monotonic() > deadline:
            raise ServeError(f"the gateway did not move to {address} in time (log: {log})")
        time.sleep(0.05)


def _moved_to(address: str) -> str:
    """The end of the line that the gateway writes when its captions come from an address."""
    return f" captions come from {address}\n"
