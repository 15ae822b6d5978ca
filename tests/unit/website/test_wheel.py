"""The wheel holds every file of its rooms, and works where nothing else of the repository is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.page_blocks import commands

PAGE = ROOT / "docs" / "versions.md"
HERE = "tests/unit/website/test_wheel.py"
FIND = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"][
    "find"
]
ROOMS = {name for name in FIND["include"] if "." not in name}
#: Top-level packages that look on from outside.
OUTSIDE = {"benchmarks", "loadtests", "tests", "website"}


def repository_files() -> list[str]:
    """What git tracks, and what it would track."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the page's command, in a copy of the repository as a fresh clone has it."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    copy = tmp_path_factory.mktemp("clone")
    needed = {*ROOMS, "pyproject.toml", "README.md", "LICENSE"}
    for name in repository_files():
        if name.partition("/")[0] in needed:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    [words] = commands(PAGE, HERE)
    assert words[:4] == ["python", "-m", "pip", "wheel"]
    # Without isolation pip asks no index for setuptools.
    line = [sys.executable, *words[1:-1], "--no-build-isolation", words[-1]]
    done = subprocess.run(line, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [file] = (copy / "build" / "wheel").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    words = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, place: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_of_the_repository_is_in_the_wheel_or_outside():
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages <= ROOMS | OUTSIDE


def test_the_wheel_has_every_file_of_its_rooms_and_no_other(wheel: Path):
    wanted = {name for name in repository_files() if name.partition("/")[0] in ROOMS}
    wanted -= {"deploy/models/.keep"}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == wanted


def test_its_commands_run_elsewhere(installed: Path, tmp_path: Path):
    (tmp_path / "holiday").mkdir()
    shutil.copy(ROOT / "docs" / "sample.jpg", tmp_path / "holiday" / "a.jpg")
    (tmp_path / "holiday" / "captions.csv").write_text("file,caption\na.jpg,a kite\n")
    assert "usage" in run(installed, tmp_path, "-m", "client", "--help")
    shown = run(installed, tmp_path, "-m", "training.prepare", "--look", "holiday")
    assert "captions: 1" in shown
    key = run(installed, tmp_path, "-m", "gateway.key", "laptop", "--file", "keys")
    assert len(key.strip()) == 43


def test_its_data_are_found_elsewhere(installed: Path, tmp_path: Path):
    code = (
        "import gateway\n"
        "from pathlib import Path\n"
        "from gateway.routes.page_files import page_files\n"
        "from training.config import load_config\n"
        "home = Path(gateway.__file__).parent.parent\n"
        "print(home, len(page_files()) > 5, load_config(['experiment=folder']).train.out)\n"
    )
    shown = run(installed, tmp_path, "-c", code)
    assert shown.split() == [str(installed), "True", "models/mine"]
