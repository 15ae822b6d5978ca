"""Finds pictures that end the process which decodes them, so that they do not stop the job.

Ray starts a process that ended again and repeats its work, without end. So an actor on the driver's
machine counts. The first time, nothing is known of the picture at fault. From the second time on
the stage reports each picture before it is decoded, and one that has ended the process twice under
watch becomes a row with the error `worker_failed`. A node that goes away under watch counts once
against the picture that was being decoded, which is not enough.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import ray

from model.refusal import Refusal

#: How often a picture may end its process under watch before it is left out.
TWICE = 2
#: How often work without a picture at fault may end its process; then the job ends.
MANY = 8


@dataclasses.dataclass
class _Work:
    """What is known of one piece of work that has begun and not ended."""

    attempts: int = 0
    current: tuple[int, int] | None = None
    deaths: collections.Counter[tuple[int, int]] = dataclasses.field(
        default_factory=collections.Counter
    )


class Deaths:
    """Counts, for each piece of work, how often its process ended; runs as an actor."""

    def __init__(self) -> None:
        self._work: dict[Any, _Work] = {}

    def begin(self, work: Any) -> tuple[int, list[tuple[int, int]]]:
        """A piece of work begins, or begins again.

        Returns:
            How often it began before without ending, and the pictures that are at fault.
        """
        found = self._work.setdefault(work, _Work())
        if found.current is not None:
            found.deaths[found.current] += 1
            found.current = None
        found.attempts += 1
        guilty = [picture for picture, count in found.deaths.items() if count >= TWICE]
        return found.attempts - 1, guilty

    def decode(self, work: Any, picture: tuple[int, int]) -> None:
        """A picture, as block and number in it, is decoded next."""
        self._work[work].current = picture

    def end(self, work: Any) -> None:
        """A piece of work has ended."""
        self._work.pop(work, None)


class Watched:
    """One piece of work of the stage that decodes.

    Args:
        deaths: The actor.
        work: Names the piece of work.
    """

    def __init__(self, deaths: Any, work: int) -> None:
        self._deaths, self._work = deaths, ("decode", work)
        self._before, guilty = ray.get(deaths.begin.remote(self._work))
        self._guilty = set(guilty)

    def may_decode(self, block: int, index: int) -> bool:
        """Whether a picture may be decoded; reports it first, if the process ended before."""
        if not self._before:
            return True
        if (block, index) in self._guilty:
            return False
        ray.get(self._deaths.decode.remote(self._work, (block, index)))
        return True

    def end(self) -> None:
        """All is decoded."""
        ray.get(self._deaths.end.remote(self._work))


def check_attempts(deaths: Any, work: Any, what: str) -> None:
    """Refuse work without a picture at fault that has ended its process too often.

    Args:
        deaths: The actor.
        work: Names the piece of work.
        what: The same for people.

    Raises:
        Refusal: It has; Ray would repeat it without end.
    """
    before, _ = ray.get(deaths.begin.remote(work))
    if before >= MANY:
        raise Refusal(
            f"{what} has ended its process {before} times; most often memory is short: give fewer "
            "--workers, or smaller --images-per-pass or --block-rows"
        )
