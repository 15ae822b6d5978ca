"""Where the gateway finds its TorchServes: a file that it reads, and the log in which it says so.

The contract is described in `gateway/reload.py`. The log is read, because `/metrics` of the gateway
may ask for a key, which nobody but its owner has.
"""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from deploy import processes
from deploy.errors import ServeError
from deploy.torchserve import TorchServe


def addresses(server: TorchServe) -> dict[str, str]:
    """The addresses of a TorchServe, under the names of the gateway's settings."""
    return {"inference": server.rest, "management": server.management, "metrics": server.metrics}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a second captioner, the candidate, gets of the gateway's requests.

    Attributes:
        inference: Address of its TorchServe for captions.
        management: Its address for management.
        metrics: Its address for metrics.
        share: Percent of the requests, 0 to 100.
        shadow: Whether it gets copies of them, so that its replies are thrown away.
    """

    inference: str
    management: str
    metrics: str
    share: float
    shadow: bool

    @classmethod
    def of(cls, server: TorchServe, share: float, shadow: bool) -> Trial:
        """That of the captioner that a TorchServe serves."""
        return cls(**addresses(server), share=share, shadow=shadow)

    def __str__(self) -> str:
        """As the gateway writes it into its log."""
        what = "a copy of " if self.shadow else ""
        return f"{self.inference} gets {what}{self.share:g}% of the requests"


#: What names of a trial begin with among the gateway's settings.
CANDIDATE = "candidate_"


def write(file: Path, server: TorchServe, trial: Trial | None = None) -> None:
    """Write the addresses of a TorchServe into a file that the gateway reads.

    Args:
        file: It is replaced as a whole, so that the gateway never reads half of one.
        server: The TorchServe.
        trial: What another one gets of the requests; None if none is tried out.
    """
    found: dict[str, Any] = dict(addresses(server))
    if trial is not None:
        found |= {f"{CANDIDATE}{name}": each for name, each in dataclasses.asdict(trial).items()}
    # A value of JSON is one of TOML too.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in found.items()]
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


def read_trial(file: Path) -> Trial | None:
    """The trial in a file that `write` wrote; None if there is none.

    Args:
        file: The file.
    """
    try:
        found = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return None
    given = {
        name.removeprefix(CANDIDATE): value
        for name, value in found.items()
        if name.startswith(CANDIDATE)
    }
    return Trial(**given) if given else None


def forget_trial(file: Path) -> None:
    """Remove the trial from a file that no gateway reads now.

    Args:
        file: The file, if there is one.
    """
    if read_trial(file) is not None:
        lines = file.read_text().splitlines(keepends=True)
        processes.replace_text(file, "".join(x for x in lines if not x.startswith(CANDIDATE)))


def stopped(log: Path, trial: Trial) -> str:
    """Why the gateway sends nothing more to a candidate; empty if it does.

    Args:
        log: What the gateway writes.
        trial: What the candidate gets.
    """
    _, _, since = _said(log).rpartition(f" candidate: {trial}\n")
    found = re.search(rf" candidate {re.escape(trial.inference)}: (stopped after [^;]*);", since)
    return found[1] if found else ""


def move(
    process: psutil.Process,
    file: Path,
    log: Path,
    server: TorchServe,
    trial: Trial | None,
    timeout: float,
) -> None:
    """Make a running gateway send its requests to other TorchServes from now on.

    Args:
        process: The gateway.
        file: What it reads.
        log: What it writes.
        server: The TorchServe that answers from now on, which is ready.
        trial: What another one gets of the requests; None if none is tried out.
        timeout: Seconds to wait until the gateway has moved.

    Raises:
        ServeError: It did not move, and stays where it was.
    """
    before = file.read_text()
    lines = [_moved_to(server.rest)]
    if trial or read_trial(file):
        lines.append(f" candidate: {trial or 'none'}\n")
    begin = log.stat().st_size
    write(file, server, trial)
    try:
        process.send_signal(signal.SIGHUP)
        _wait_moved(process, log, begin, server.rest, lines, time.monotonic() + timeout)
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
        said = _said(log)
        # The last time that the gateway was moved to it, started with it, or tried it out.
        used = max(said.rfind(_moved_to(address)), said.rfind(f" candidate: {address} gets "))
        if used < 0 or f" backend {address}: its last request has ended\n" in said[used:]:
            return
        if time.monotonic() > deadline:
            raise ServeError(f"requests of the gateway are still at {address} after {timeout:g} s")
        time.sleep(0.1)


def _wait_moved(
    process: psutil.Process,
    log: Path,
    begin: int,
    address: str,
    lines: Sequence[str],
    deadline: float,
) -> None:
    """Return once the log says, from a position on, that the gateway has moved."""
    while True:
        said = _said(log, begin)
        if all(line in said for line in lines):
            return
        if refused := re.search(r" reload refused, [^:]*: (.*)\n", said):
            raise ServeError(f"the gateway did not move: {refused.group(1)}")
        if not processes.runs(process):
            raise ServeError(f"the gateway ended by itself; to start it: make serve (log: {log})")
        if time.monotonic() > deadline:
            raise ServeError(f"the gateway did not move to {address} in time (log: {log})")
        time.sleep(0.05)


def _said(log: Path, begin: int = 0) -> str:
    """What the gateway has said of its TorchServes from a position of the log on, in plain lines.

    With `GATEWAY_JSON_LOG` the log is one of JSON.
    """
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines(keepends=True)
    return "".join(map(_plain, lines))


def _plain(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line) if '"message"' in line else {}
    except ValueError:  # half a line
        return ""
    return f"{found['level']} {found['message']}\n" if "message" in found else ""


def _moved_to(address: str) -> str:
    """The end of the line that the gateway writes when its captions come from an address."""
    return f" captions come from {address}\n"
