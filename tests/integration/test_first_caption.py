"""docs/first-caption.md and README.md: what they ask a server that `make serve` started."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.torchserve import TorchServe
from tests import ROOT
from tests.page_blocks import commands

HERE = "tests/integration/test_first_caption.py"
PAGES = [ROOT / "docs" / "first-caption.md", ROOT / "README.md"]
LINES = {shlex.join(words): words for page in PAGES for words in commands(page, HERE)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the pictures that the pages name."""
    for name in ("holiday/a.jpg", "holiday/more/b.jpg", "photo.jpg", "docs/sample.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / "sample.jpg", tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_a_command_captions(server: TorchServe, place: Path, line: str):
    words = LINES[line]
    if words[0] == "curl":
        words = [word.replace("http://127.0.0.1:8080", server.rest) for word in words]
    else:
        assert words[:3] == [".venv/bin/python", "-m", "client"]
        address = server.grpc if "--grpc" in words else server.rest
        ports = ["--address", address, "--management", server.management]
        files = [name for word in words[3:] for name in expanded(place, word)]
        words = [sys.executable, "-m", "client", *ports, *(f for f in files if f != "--grpc")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        words, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    if words[0] == "curl" or "--json" in words:
        reply = json.loads(done.stdout)
        assert len(reply["captions"]) == (3 if "--num-captions" in words else 1)
    elif "--options" in words:
        assert "--num-beams" in done.stdout
    elif "--csv" in words:
        assert len((place / "captions.csv").read_text().splitlines()) == 3
        assert (place / "holiday" / "more" / "b.txt").read_text().strip()
    else:
        assert "holiday/a.jpg: " in done.stdout


def expanded(place: Path, word: str) -> list[str]:
    """The files of a pattern, as a shell gives them."""
    if "*" not in word:
        return [word]
    return [str(file.relative_to(place)) for file in sorted(place.glob(word))]
