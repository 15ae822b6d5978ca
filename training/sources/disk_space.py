"""Checks before a long command that the disk has room for what it will write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from model.refusal import Refusal

#: Bytes that stay free beyond what the command writes, for indexes, logs and other programs.
SPARE = 200_000_000


def check_space(needed: Mapping[str, tuple[Path, int]]) -> None:
    """Refuse to start when a disk cannot hold what will be written to it.

    Args:
        needed: Name of a setting -> the folder that it names (it need not exist yet), and the
            bytes that will be written there. Folders on one disk are added up.

    Raises:
        Refusal: Too little room; the message names the settings whose folders are on that disk.
    """
    disks: dict[int, list[str]] = {}
    for setting, (folder, _) in needed.items():
        disks.setdefault(_nearest_existing(folder).stat().st_dev, []).append(setting)
    for settings in disks.values():
        folder = _nearest_existing(needed[settings[0]][0])
        free = shutil.disk_usage(folder).free
        total = sum(needed[setting][1] for setting in settings)
        if total and total + SPARE > free:
            raise Refusal(
                f"{' and '.join(settings)} need {gigabytes(total + SPARE)} on the disk of "
                f"{folder}, which has {gigabytes(free)} free; make room, or give a folder on "
                "another disk"
            )


def gigabytes(size: int) -> str:
    """A number of bytes in gigabytes (10^9), such as `1.25 GB`."""
    return f"{size / 1e9:.2f} GB"


def _nearest_existing(folder: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
