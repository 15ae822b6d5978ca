"""Passes this machine's settings of pip on to the build of an image.

pip in a build sees neither the settings nor the folders of the machine: its indexes, certificates
and folders of wheels. This file finds them with `pip config list`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

#: Settings that name where packages come from.
_SOURCES = ("index-url", "extra-index-url", "find-links")
#: Where pip keeps settings, from the weakest to the strongest.
_PLACES = ("global", "user", "site", "install", ":env:")


def build_options(folder: Path) -> list[str]:
    """Options of `buildah bud` that make pip in the build find what pip finds here.

    Args:
        folder: For the file of settings, which must be there until the build ends.

    Returns:
        Read-only mounts. If pip has sources of its own here, they are torch's source too.
    """
    text = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True,
        check=True,
    ).stdout  # fmt: skip
    settings = read_settings(text)
    if not settings:
        return []
    file = folder / "pip.conf"
    lines = (f"{name} = {value}" for name, value in settings.items())
    file.write_text("\n".join(["[global]", *lines]) + "\n")
    options = [f"--volume={file}:/etc/pip.conf:ro"]
    options += [f"--volume={path}:{path}:ro" for path in paths(settings)]
    if any(name in settings for name in _SOURCES):
        options.append("--build-arg=TORCH_INDEX=")
    return options


def read_settings(text: str) -> dict[str, str]:
    """Name and value of each setting, the strongest of those with one name.

    Args:
        text: Lines such as `global.index-url='https://...'`, as `pip config list` prints them.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        place, _, name = key.rpartition(".")
        strength = _PLACES.index(place) if place in _PLACES else -1
        if strength >= found.get(name, (-1, ""))[0]:
            found[name] = (strength, str(ast.literal_eval(value)))
    return {name: value for name, (_, value) in found.items()}


def paths(settings: Mapping[str, str]) -> list[Path]:
    """Files and folders of this machine that settings name.

    Args:
        settings: Name -> value. Of a `file:` address the folder around it is taken, because an
            index refers to files beside it.
    """
    found = set()
    for word in " ".join(settings.values()).split():
        url = urllib.parse.urlsplit(word)
        path = Path(urllib.parse.unquote(url.path)).parent if url.scheme == "file" else Path(word)
        if path.is_absolute() and path != Path("/") and path.exists():
            found.add(path)
    return sorted(found)
