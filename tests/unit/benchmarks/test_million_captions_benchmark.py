"""The benchmark of reading captions writes each form so that all of it is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import million_captions
from training.sources.captions.entry import Reading
from training.sources.captions.read_folder import read_folder
from training.sources.captions.recognise import recognise
from training.sources.tar_samples import read_samples


@pytest.mark.parametrize("name", million_captions.FORMS)
def test_every_line_is_read(name: str, tmp_path: Path):
    if "Parquet" in name or "save_to_disk" in name:
        pytest.importorskip("pyarrow.parquet")
    write, needs_files = million_captions.FORMS[name]
    (tmp_path / "images").mkdir()
    for number in range(6 if needs_files else 0):
        (tmp_path / "images" / f"{number:08d}.jpg").touch()
    write(tmp_path, 30, 6)
    if name == "tar shards":
        samples = read_samples(tmp_path / "00000.tar", Reading())
        assert len(samples) == 30
        return
    found = read_folder(recognise(tmp_path))
    assert not found.reading.faults
    captions = [found.pictures.captions(n) for n in range(len(found.pictures))]
    assert sum(map(len, captions)) == 30


def test_it_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    settings = ["--lines", "30", "--pictures", "6", "--folder", str(tmp_path / "made")]
    monkeypatch.setattr(sys, "argv", ["million_captions", *settings, "--form", "COCO"])
    million_captions.main()
    assert "| COCO | " in capsys.readouterr().out
    assert not (tmp_path / "made").exists()
