"""Is there room on the disk: asked before the work, not noticed in the middle of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from model.refusal import Refusal

#: Left free beyond what is needed, in bytes: indexes, logs, and whoever else writes.
SPARE = 200_000_000


def check_space(needed: Mapping[str, tuple[Path, int]]) -> None:
    """Refuse when a disk cannot hold what will be written to it.

    Args:
        needed: Setting -> the folder it names (which need not exist) and the bytes to come.

    Raises:
        Refusal: Too little room, with the settings that share the disk.
    """
    disks: dict[int, list[str]] = {}
    for setting, (folder, _) in needed.items():
        disks.setdefault(_existing(folder).stat().st_dev, []).append(setting)
    for settings in disks.values():
        folder = _existing(needed[settings[0]][0])
        free = shutil.disk_usage(folder).free
        total = sum(needed[setting][1] for setting in settings)
        if total and total + SPARE > free:
            raise Refusal(
                f"{' and '.join(settings)} need {gigabytes(total + SPARE)} on the disk of "
                f"{folder}, which has {gigabytes(free)} free; make room, or give a folder on "
                "another disk"
            )


def gigabytes(size: int) -> str:
    """A size in bytes as people read it."""
    return f"{size / 1e9:.2f} GB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
