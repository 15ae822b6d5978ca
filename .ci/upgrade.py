"""Writes `constraints.txt`: every package of every group, at the newest version allowed.

    python .ci/upgrade.py [words for pip ...]

pip resolves all groups of `pyproject.toml` together, as for an empty environment, and installs
nothing. The pins carry no URL, no file and no local version such as `+cpu`, so they hold on every
machine. Packages that only some machines get, such as the CUDA libraries of PyTorch, are pinned by
PyTorch itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Every package that the Makefile installs, at the version that the tests passed with.
# Written by `make upgrade`; pyproject.toml has the ranges.
"""


def main() -> None:
    """Resolve and write."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = re.findall(r">=(\d+)\.(\d+)", project["requires-python"])[0]
    if sys.version_info[:2] != tuple(map(int, oldest)):
        sys.exit(
            f"error: this is Python {sys.version_info[0]}.{sys.version_info[1]}; resolve with the "
            f"oldest that is supported, {'.'.join(oldest)}: newer packages may leave it out"
        )
    groups = ",".join(project["optional-dependencies"])
    resolve = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    with tempfile.TemporaryDirectory() as folder:
        python = _newest_pip(Path(folder))
        done = subprocess.run(
            [python, "-m", "pip", *resolve, *sys.argv[1:], "-e", f"{ROOT}[{groups}]"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"error: pip ended with status {done.returncode}; see the lines above")
    packages = (each["metadata"] for each in json.loads(done.stdout)["install"])
    pins = {each["name"]: each["version"].partition("+")[0] for each in packages}
    del pins[project["name"]]
    old = CONSTRAINTS.read_text().splitlines() if CONSTRAINTS.exists() else []
    new = [f"{name}=={pins[name]}" for name in sorted(pins, key=str.lower)]
    CONSTRAINTS.write_text(HEADER + "".join(f"{line}\n" for line in new))
    for line in sorted({*new} ^ {line for line in old if not line.startswith("#")}, key=str.lower):
        print(f"{'+' if line in new else '-'} {line}")


def _newest_pip(folder: Path) -> str:
    """The Python of a new environment with the newest pip.

    The pip that comes with Python 3.11 tries versions for over ten minutes where this one needs
    seconds.
    """
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--upgrade", *sys.argv[1:], "pip"]
    if subprocess.run(pip, check=False).returncode:
        sys.exit("error: the newest pip cannot be installed; see the lines above")
    return python


if __name__ == "__main__":
    main()
