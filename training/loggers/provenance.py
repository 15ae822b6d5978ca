"""What a run was made from: settings, commit of the code, fingerprint of the data."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The folder of the code.
ROOT = Path(__file__).resolve().parent.parent.parent


def provenance(settings: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What the loggers record of a run before it begins.

    Args:
        settings: All settings as nested dictionaries.
        recorded: The settings that a run is resumed with. Of these the SHA-256 are taken, which
            stand for the contents of files.

    Returns:
        Every setting by its key, such as `train.epochs`; `git.commit` and `git.modified` of the
        code; and the SHA-256 of the data set's files and of the encoder.
    """
    hashes = {name: value for name, value in recorded.items() if name.startswith("SHA-256")}
    return {**_flat(settings), **_commit(ROOT), **hashes}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested dictionaries, with the keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _commit(folder: Path) -> dict[str, Any]:
    """The commit that is checked out in a folder, and whether tracked files differ from it.

    Outside of a repository, or without git, as in the container's image, both are `unknown`.
    """
    found: list[str] = []
    for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return {"git.commit": "unknown", "git.modified": "unknown"}
        found.append(done.stdout.strip())
    commit, changes = found
    return {"git.commit": commit, "git.modified": bool(changes)}
