"""A torchvision of another build than torch's can be imported."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("first", ["model.network", "model.pretrained", "training", "benchmarks"])
def test_torchvision_without_its_library_can_be_imported_after_each_package(
    first: str, tmp_path: Path
):
    done = importing(f"import {first}, torchvision", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_prepared_packages_of_the_model_import_transformers():
    importing_it = set()
    for file in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(str(name).partition(".")[0] == "transformers" for name in names):
                importing_it.add(file.parent.name)
    assert importing_it == {"network", "pretrained"}
