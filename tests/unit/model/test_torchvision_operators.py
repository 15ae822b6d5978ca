"""A torchvision of another build than torch's can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

#: What PyPI's torchvision does when its library, built for CUDA, could not be loaded.
DESCRIBES = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: None)
"""


def importing(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What an interpreter says that finds this torchvision first."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(DESCRIBES)
    (package / "_C.so").write_bytes(b"built for something else")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_torchvision_without_its_library_cannot_be_imported_by_itself(tmp_path: Path):
    assert importing("import torchvision", tmp_path).returncode != 0


@pytest.mark.parametrize("first", ["model", "training", "benchmarks"])
def test_torchvision_without_its_library_is_imported_behind_each_room(first: str, tmp_path: Path):
    done = importing(f"import {first}, torchvision", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
