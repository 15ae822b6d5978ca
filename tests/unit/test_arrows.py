"""The rooms of the house, and who may know whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

#: room -> the rooms it may import from; `loadtests`, `benchmarks`, `tests` and `website` look on
#: from outside.
MAY_IMPORT = {
    "model": {"model"},
    "training": {"training", "model", "feedback"},
    "handler": {"handler", "model"},
    "client": {"client"},
    "deploy": {"deploy", "client"},
    "feedback": {"feedback"},
    "monitoring": {"monitoring", "model", "client", "feedback", "training"},
    "gateway": {"gateway", "client", "feedback"},
    "scale": {"scale", "handler", "model"},
}
ROOMS = {*MAY_IMPORT, "loadtests", "benchmarks", "tests", "website"}
#: room -> packages it must never need.
NEVER = {
    "model": {"pytorch_lightning", "lightning", "hydra", "omegaconf", "ts", "dvc"},
    "handler": {"transformers", "pytorch_lightning", "lightning", "hydra", "numpy", "dvc"},
    "client": {"torch", "transformers", "ts", "PIL", "numpy"},
    "gateway": {"torch", "transformers", "ts", "PIL", "numpy", "pandas", "pyarrow", "evidently"},
    "feedback": {"torch", "transformers", "ts", "PIL", "numpy"},
    "scale": {"transformers", "pytorch_lightning", "lightning", "hydra", "ts", "dvc"},
}


def files_of(room: str) -> list[Path]:
    return sorted(file for file in (ROOT / room).rglob("*.py") if "generated" not in file.parts)


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno} imports relatively"
            yield node.lineno, str(node.module)


def test_every_room_is_known_here():
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} == ROOMS


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_it_may_know(room: str):
    assert files_of(room)
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files_of(room)
        for line, name in imports_of(file)
        if (top := name.partition(".")[0]) in ROOMS and top not in MAY_IMPORT[room]
    ]
    assert not wrong


@pytest.mark.parametrize("room", sorted(NEVER))
def test_a_room_never_needs_what_is_not_for_it(room: str):
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files_of(room)
        for line, name in imports_of(file)
        if name.partition(".")[0] in NEVER[room]
    ]
    assert not wrong


def test_what_the_archive_packs_needs_no_transformers():
    from training.archive import ROOT as PACKED_FROM
    from training.archive import serving_modules

    for file in serving_modules():
        for line, name in imports_of(PACKED_FROM / file):
            top = name.partition(".")[0]
            assert top not in NEVER["handler"], f"{file}:{line} imports {name}"
            assert top not in ROOMS - {"model", "handler"}, f"{file}:{line} imports {name}"


def test_the_handler_defines_one_class():
    tree = ast.parse((ROOT / "handler" / "caption_handler.py").read_text())
    assert len([node for node in tree.body if isinstance(node, ast.ClassDef)]) == 1


def test_importing_the_client_brings_none_of_the_heavy_packages():
    code = (
        "import sys, client, client.__main__\n"
        "print(*sorted({'torch', 'transformers', 'ts', 'PIL', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    found = [file for room in ROOMS for file in files_of(room) if file.stem in drawers]
    assert not found


def test_every_file_says_what_it_is():
    silent = [
        str(file.relative_to(ROOT))
        for room in ROOMS
        for file in files_of(room)
        if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert not silent


@pytest.mark.parametrize(
    "folder", ["model", *sorted(str(file.parent.relative_to(ROOT)) for file in
                                (ROOT / "training").glob("*/__init__.py"))],
)  # fmt: skip
def test_a_reading_order_names_every_file(folder: str):
    """`model/__init__.py` lists the files of all its folders, the others their own."""
    order = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
    files = (ROOT / folder).rglob("*.py") if folder == "model" else (ROOT / folder).glob("*.py")
    names = {
        file.relative_to(ROOT / folder).with_suffix("").as_posix()
        for file in files
        if file.name != "__init__.py"
    }
    assert not [name for name in names if not re.search(rf"\b{re.escape(name)}\b", order)]
