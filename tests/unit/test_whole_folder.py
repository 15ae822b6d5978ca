"""A folder takes the place of an older one of its kind, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.refusal import Refusal
from model.whole_folder import whole_folder


def test_an_older_one_of_its_kind_is_replaced(tmp_path: Path):
    for text in ("first", "second"):
        with whole_folder(tmp_path / "out", "mark", "other") as folder:
            (folder / "mark").write_text(text)
    assert (tmp_path / "out" / "mark").read_text() == "second"


def test_anything_else_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        with (
            pytest.raises(Refusal, match="holds something else"),
            whole_folder(tmp_path / name, "mark"),
        ):
            pytest.fail("it began")
    assert (tmp_path / "out" / "photo.jpg").read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out", "mark") as folder:
        (folder / "mark").touch()
    assert (tmp_path / "out" / "mark").exists()
