"""The logs of a server: one folder a server, with those of the servers before it beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

#: How many older folders of logs are kept.
KEPT = 3
#: The logs of TorchServe and its workers.
TORCHSERVE = ("console.log", "ts_log.log", "model_log.log")
#: The log of the gateway.
GATEWAY = "gateway.log"


def rotate(folder: Path) -> None:
    """Make an empty folder; what it was before becomes `folder.1`, that `folder.2`, and so on.

    Args:
        folder: The folder of logs. The oldest of `KEPT` + 1 is removed.
    """
    folders = [folder, *(folder.with_name(f"{folder.name}.{n}") for n in range(1, KEPT + 1))]
    shutil.rmtree(folders[-1], ignore_errors=True)
    for n in range(KEPT, 0, -1):
        if folders[n - 1].is_dir():
            folders[n - 1].rename(folders[n])
    folder.mkdir(parents=True)


def worker_failure(folder: Path) -> str | None:
    """Why the handler cannot run, or None; TorchServe itself starts it again without end.

    Args:
        folder: The folder of logs.
    """
    log = folder / "model_log.log"
    return find_failure(log.read_text(errors="replace") if log.is_file() else "")


def find_failure(text: str) -> str | None:
    """Why the handler cannot run, as it stands in what a worker logged, or None.

    Args:
        text: Lines of `model_log`.
    """
    found = re.search(r"RuntimeError: (this archive cannot be served: .*)", text)
    return found.group(1) if found else None


def last_lines(folder: Path, names: Sequence[str] = TORCHSERVE) -> str:
    """The last lines of logs in one line, with the folder, for an error message.

    Args:
        folder: The folder of logs.
        names: Files of the folder.
    """
    lines = [
        line
        for name in names
        if (folder / name).is_file()
        for line in (folder / name).read_text(errors="replace").splitlines()[-3:]
    ]
    return f"{' | '.join(lines)[-600:] or 'the logs are empty'} (logs: {folder})"
