"""The `handler` section of `model-config.yaml`: limits of one worker."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.image.decode import MAX_PIXELS
from model.refusal import Refusal

#: Where a container's share of the processor stands (Linux, cgroup 2).
QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits of one worker.

    Attributes:
        max_pixels: Width x height of a picture.
        max_pictures: Pictures in one KServe request.
        images_per_pass: Pictures that go through the model together; bounds its memory.
        deadline_seconds: A batch stops captioning after this time and answers 504.
        threads: Threads of torch in this worker.
    """

    max_pixels: int = MAX_PIXELS
    max_pictures: int = 16
    images_per_pass: int = 8
    deadline_seconds: float = 60.0
    threads: int = 1


def read(config: Mapping[str, Any]) -> Settings:
    """Settings from the parsed `model-config.yaml`, TorchServe's own keys included.

    Without `threads` the cores that it may use are shared out among `minWorkers`.

    Raises:
        Refusal: An unknown key, or a value that is not a positive number.
    """
    section = dict(config.get("handler") or {})
    known = {field.name: field.type for field in dataclasses.fields(Settings)}
    for name, value in section.items():
        if name not in known:
            raise Refusal(
                f"model-config.yaml: handler.{name} does not exist; known: {', '.join(known)}"
            )
        whole = known[name] == "int"
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or value <= 0:
            kind = "whole number" if whole else "number"
            raise Refusal(
                f"model-config.yaml: handler.{name} is {value!r}; it must be a {kind} above 0"
            )
    workers = max(1, int(config.get("minWorkers") or 1))
    section.setdefault("threads", max(1, cores() // workers))
    return Settings(**section)


def cores(quota: Path = QUOTA) -> int:
    """Cores that this process may use: of the machine, and of its container's share of them."""
    found = len(os.sched_getaffinity(0))
    if quota.is_file():
        share, period = quota.read_text().split()  # microseconds of every so many
        if share != "max":
            found = min(found, math.ceil(int(share) / int(period)))
    return found
