"""What a case is, and the ways in which it ends."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtests.chaos.stage import Stage


class Failed(Exception):
    """Something was not as the case expects; the message says what was seen."""


class Skipped(Exception):
    """The case cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault and what is expected of the servers.

    Attributes:
        name: For `--only`.
        fault: What is done, for the table.
        expected: What must be seen.
        run: Does it on a stage, and returns what was seen.

    Raises:
        Failed: By `run`: it was not as expected.
        Skipped: By `run`: it cannot be done here.
    """

    name: str
    fault: str
    expected: str
    run: Callable[[Stage], str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: The case.
        result: `passed`, `failed` or `skipped`.
        seen: What was seen, or why it failed or was skipped.
        requests: How many the clients sent.
        lost: How many of them got no caption although the gateway had accepted them.
        slowest: Seconds of the slowest that got its caption; 0 if there was none.
        seconds: That the whole case took.
    """

    case: Case
    result: str
    seen: str
    requests: int
    lost: int
    slowest: float
    seconds: float


def check(condition: object, seen: str) -> None:
    """Raise `Failed` with what was seen unless a condition holds."""
    if not condition:
        raise Failed(seen)


def wait_until(condition: Callable[[], object], seconds: float, seen: str) -> float:
    """Wait until a condition holds.

    Args:
        condition: Asked ten times a second.
        seconds: To wait at most.
        seen: What it means that it does not hold.

    Returns:
        The seconds that it took.

    Raises:
        Failed: It did not hold in time.
    """
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise Failed(f"{seen} after {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - begin
