"""Processes that outlive the command which started them: written to a file, found again, ended."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import psutil

from deploy.errors import ServeError

#: Seconds after which it is said that something waits.
MOMENT_SECONDS = 5.0


def read_state(file: Path) -> dict[str, Any]:
    """What a state file holds; empty if there is none or it is damaged.

    Args:
        file: A JSON file with the `pid` of a process and when it was `created` (see `created`),
            and more.
    """
    try:
        state = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def created(process: psutil.Process) -> float:
    """When a process began, in seconds since the machine started.

    The time of the clock would be another one whenever the clock is set.

    Args:
        process: The process.

    Raises:
        psutil.Error: It has ended.
    """
    return float(process.create_time() - psutil.boot_time())


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Write a state file.

    Args:
        file: See `replace_text`.
        state: See `read_state`.
    """
    replace_text(file, json.dumps(state))


def replace_text(file: Path, text: str) -> None:
    """Write a file as a whole: nobody reads half of it, also if this command is killed on the way.

    Args:
        file: The file; it may be there.
        text: Its new content.
    """
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def find(state: dict[str, Any], word: str) -> psutil.Process | None:
    """The running process that a state names, if it is still the same process.

    Args:
        state: See `read_state`.
        word: An argument of its command line.
    """
    try:
        process = psutil.Process(state["pid"])
        if abs(created(process) - state["created"]) >= 1:
            return None  # the system gave the number to another process
    except (KeyError, TypeError, ValueError, psutil.Error):
        return None
    try:
        return process if word in process.cmdline() else None
    except psutil.AccessDenied:  # of another user: number and time of creation must do
        return process
    except psutil.Error:
        return None


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(
    process: psutil.Process, name: str, patience: float = 15.0, waits: str | None = None
) -> None:
    """End a process and those that it started: by SIGTERM, or else by SIGKILL.

    Args:
        process: The process.
        name: What it is, for the message.
        patience: Seconds from SIGTERM to SIGKILL.
        waits: A line to print if it takes more than a moment.

    Raises:
        ServeError: The process belongs to another user.
    """
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        family = []
    except psutil.AccessDenied:
        raise ServeError(
            f"the {name} (process {process.pid}) belongs to the user {process.username()}; only "
            "that user can end it"
        ) from None
    moment = min(MOMENT_SECONDS, patience)
    _, alive = psutil.wait_procs(family, timeout=moment)
    if alive and waits:
        print(waits, flush=True)
    _, alive = psutil.wait_procs(alive, timeout=patience - moment)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(alive, timeout=5)
