"""A base image of Debian 12 with its Python 3.11, made by debootstrap: no registry is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.errors import ServeError

#: Kept in podman's storage for the next time; `podman rmi` removes it.
BASE = "localhost/clipcap-base:bookworm"
_PACKAGES = "python3.11,python3-venv,ca-certificates"
#: Downloads that are of no use in an image.
_LEFT_OUT = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*")


def debian_base(folder: Path) -> str:
    """The name of the base image, which is made unless it is there.

    Args:
        folder: For temporary files.

    Raises:
        ServeError: debootstrap or podman failed; their output says why.
    """
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode == 0:
        return BASE
    root = folder / "debian"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if made.returncode:
        raise ServeError(f"debootstrap failed with status {made.returncode}; see the lines above")
    with subprocess.Popen(
        ["tar", "-C", root, *(f"--exclude={each}" for each in _LEFT_OUT), "-c", "."],
        stdout=subprocess.PIPE,
    ) as tar:
        imported = subprocess.run(
            ["podman", "import", "--quiet", "-", BASE], stdin=tar.stdout, check=False
        )
    shutil.rmtree(root)
    if tar.returncode or imported.returncode:
        raise ServeError(f"{BASE} could not be made of {root}; see the lines above")
    return BASE
