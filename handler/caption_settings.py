"""The `handler` section of `model-config.yaml`: limits of one worker.

The values stand in that file alone, each with its meaning; here they are checked.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from handler.capture.settings import CaptureSettings, read_capture
from model.refusal import Refusal

#: Seconds until TorchServe ends a worker that does not answer, where the file does not say.
DEFAULT_RESPONSE_TIMEOUT = 120
#: Values of `device`.
DEVICES = ("auto", "cpu")
#: Where Linux keeps the processor quota of a container.
CGROUP = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits of one worker, all numbers above 0, and what it logs.

    Attributes:
        max_pixels: Most pixels (width x height) at which a picture is decoded. It also gives the
            memory for decoding (see `DecodingMemory`).
        max_pictures: Most pictures in one KServe request.
        images_per_pass: Most images in one pass through the model; up to `threads` passes run at
            a time.
        deadline_seconds: Seconds after which a batch begins no more passes, and answers the
            requests that are left with 504.
        explanation_seconds: Seconds that the explanations of a batch may take together. The other
            requests of the batch wait so much longer at most.
        threads: Threads of torch in this worker.
        device: `auto`, the GPU that TorchServe gives to this worker where there is one; or `cpu`.
        gpu_images_per_pass: `images_per_pass` of a worker on a GPU.
        request_log: Whether each request gets a line in the log (`telemetry/request_log.py`).
        capture: What is kept of captioned pictures; None for nothing.
    """

    max_pixels: int
    max_pictures: int
    images_per_pass: int
    deadline_seconds: float
    explanation_seconds: float
    threads: int
    device: str
    gpu_images_per_pass: int
    request_log: bool
    capture: CaptureSettings | None = None


def read(config: Mapping[str, Any]) -> Settings:
    """Check the parsed `model-config.yaml`.

    Args:
        config: The whole file, with TorchServe's own keys. Without `handler.threads` each of the
            `minWorkers` gets an equal part of the cores.

    Raises:
        Refusal: A key of the section is unknown or missing, a value has the wrong type or is not
            above 0, or the deadline is not before TorchServe's own.
    """
    section = dict(config.get("handler") or {})
    workers = max(1, int(config.get("minWorkers") or 1))
    section.setdefault("threads", max(1, cores() // workers))
    types = get_type_hints(Settings)
    capture = read_capture(section.pop("capture", None))
    for name in section:
        if name not in types:
            raise _refusal(f"handler.{name} does not exist; known: {', '.join(types)}")
    del types["capture"]
    for name, kind in types.items():
        if name not in section:
            raise _refusal(f"handler.{name} is missing; handler/model-config.yaml has them all")
        value = section[name]
        if kind is bool:
            if type(value) is not bool:
                raise _refusal(f"handler.{name} is {value!r}; it must be true or false")
            continue
        if kind is str:
            if value not in DEVICES:
                raise _refusal(f"handler.{name} is {value!r}; it must be {' or '.join(DEVICES)}")
            continue
        whole = kind is int
        if type(value) not in ((int,) if whole else (int, float)) or not 0 < value < math.inf:
            noun = "whole number" if whole else "number"
            raise _refusal(f"handler.{name} is {value!r}; it must be a {noun} above 0")
    settings = Settings(**section, capture=capture)
    timeout = config.get("responseTimeout") or DEFAULT_RESPONSE_TIMEOUT
    if not settings.deadline_seconds < timeout:
        raise _refusal(
            f"handler.deadline_seconds is {settings.deadline_seconds:g}; it must be below "
            f"responseTimeout ({timeout}), after which TorchServe ends the worker"
        )
    return settings


def on_device(settings: Settings, gpu: int | None) -> tuple[Settings, str]:
    """The device of a worker, and its limits there.

    Args:
        settings: As they were read.
        gpu: The number of the GPU that TorchServe gives to this worker; None without GPUs.

    Returns:
        The settings, whose `images_per_pass` is that of the device, and `cpu` or `cuda:N`.
    """
    if settings.device == "cpu" or gpu is None:
        return settings, "cpu"
    count = settings.gpu_images_per_pass
    return dataclasses.replace(settings, images_per_pass=count), f"cuda:{gpu}"


def cores(cgroup: Path = CGROUP) -> int:
    """Processor cores that this process may use.

    The smaller of its processor affinity and its container's quota (cgroup 2, or 1), which is
    rounded up. `loky.cpu_count` reads the same, but would be one more package for every worker to
    install, for these few lines.

    Args:
        cgroup: Folder of the container's limits; on systems without one there is no quota.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    quota = period = ""  # microseconds of processor time in each period
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text().split()
    elif (cgroup / "cpu" / "cpu.cfs_quota_us").is_file():
        quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
    if quota not in ("", "max", "-1"):
        found = min(found, math.ceil(int(quota) / int(period)))
    return found


def _refusal(text: str) -> Refusal:
    return Refusal(f"model-config.yaml: {text}")
