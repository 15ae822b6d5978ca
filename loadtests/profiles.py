"""The profiles of `thresholds.yaml`: what is sent, in which stages, and the limits of figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loadtests.kinds import KINDS

THRESHOLDS = Path(__file__).parent / "thresholds.yaml"


class LoadTestError(Exception):
    """A load test that cannot be run; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a profile with the same load from its beginning to its end.

    A stage has users who wait for a reply before they send the next request, or requests that
    arrive at a rate whatever becomes of the ones before.

    Attributes:
        name: For the figures.
        users: How many users there are.
        times_peak: Requests arrive at this multiple of the rate at which the first stage got
            its captions.
        seconds: How long the stage is.
        requests: The stage ends after this many requests instead.
        settle_seconds: This part of the beginning is not measured: users start, batches fill.
    """

    name: str
    users: int = 0
    times_peak: float = 0.0
    seconds: float = 0.0
    requests: int = 0
    settle_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """A load and its limits.

    Attributes:
        name: For the command line.
        about: What it shows, in a sentence.
        kinds: Name of a kind of request -> how often it is sent, in relation to the others.
        stages: One after the other.
        limits: `max_` or `min_` and the name of a figure -> its limit.
        gateway: Whether requests go to the gateway; else to TorchServe, which then runs alone.
        clients: Name of a client of the gateway -> its part of the users. Each has a key.
    """

    name: str
    about: str
    kinds: Mapping[str, int]
    stages: tuple[Stage, ...]
    limits: Mapping[str, float]
    gateway: bool = True
    clients: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"one": 1})

    def __post_init__(self) -> None:
        """Check values and their combination.

        Raises:
            LoadTestError: One cannot be used.
        """
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise self._error(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
        if not self.gateway and not all(KINDS[kind].of_torchserve for kind in self.kinds):
            raise self._error("without the gateway only kinds predictions_... can be sent")
        if not (self.kinds and self.stages and self.clients):
            raise self._error("kinds, stages and clients must not be empty")
        for number, stage in enumerate(self.stages):
            if (stage.users > 0) == (stage.times_peak > 0):
                raise self._error(f"{stage.name} needs either users or times_peak, above 0")
            if (stage.seconds > 0) == (stage.requests > 0):
                raise self._error(f"{stage.name} needs either seconds or requests, above 0")
            if stage.times_peak and not number:
                raise self._error(f"{stage.name}: the first stage cannot have times_peak")
        for name in self.limits:
            if not name.startswith(("max_", "min_")):
                raise self._error(f"the limit {name} must begin with max_ or min_")

    def _error(self, problem: str) -> LoadTestError:
        return LoadTestError(f"{THRESHOLDS.name}: {self.name}: {problem}")

    def shortened(self, part: float) -> Profile:
        """This profile with a part of the length of each stage.

        Args:
            part: Above 0; 0.1 for a tenth.
        """
        stages = tuple(
            dataclasses.replace(
                stage,
                seconds=stage.seconds * part,
                requests=math.ceil(stage.requests * part),
                settle_seconds=stage.settle_seconds * part,
            )
            for stage in self.stages
        )
        return dataclasses.replace(self, stages=stages)


def read_profiles(file: Path = THRESHOLDS) -> dict[str, Profile]:
    """The profiles by name.

    Args:
        file: `thresholds.yaml`, or one of its form.

    Raises:
        LoadTestError: A profile has an unknown or missing field, or a value that cannot be used.
    """
    return {
        name: profile_from(name, given)
        for name, given in yaml.safe_load(file.read_text())["profiles"].items()
    }


def profile_from(name: str, given: Mapping[str, Any]) -> Profile:
    """A profile from its fields, as YAML and JSON have them.

    Raises:
        LoadTestError: See `read_profiles`.
    """
    try:
        stages = tuple(Stage(**stage) for stage in given.get("stages", ()))
        return Profile(**{"name": name, **given, "stages": stages})
    except TypeError as error:  # names the field
        raise LoadTestError(f"{THRESHOLDS.name}: {name}: {error}") from None
