"""A torchvision of another build than torch's can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What PyPI's torchvision does when its library, built for CUDA, could not be loaded.
DESCRIBES = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: None)
"""


@pytest.mark.parametrize("first", ["model", "training", "benchmarks"])
def test_torchvision_without_its_library_is_imported_behind_each_room(first: str, tmp_path: Path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(DESCRIBES)
    (package / "_C.so").write_bytes(b"built for something else")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {{}}torchvision"
    for before, works in (("", False), (f"{first}, ", True)):
        command = [sys.executable, "-c", code.format(before)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == works, done.stderr
    assert done.stderr == ""
