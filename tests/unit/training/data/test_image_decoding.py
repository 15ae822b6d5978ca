"""Decoding the pictures of a data set: what is used is sound, or said not to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.pictures import encoded, half, photo, picture
from training.data.image_decoding import decode_files, examine_files


def mean(image: Image.Image) -> torch.Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float().mean()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    whole = encoded(picture(), "JPEG")
    contents = {
        "a.jpg": whole,
        "b.jpg": whole[:-2],
        "c.jpg": half(photo()),
        "d.heic": encoded(picture(), "HEIF"),
        "e.jpg": whole[:-1],
        "f.tif": encoded(picture(), "TIFF", icc_profile=b"no profile"),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in contents]


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_short_of_their_last_bytes_are_used_and_counted(
    files: list[Path], workers: int, capsys: pytest.CaptureFixture[str]
):
    decoded = list(decode_files(files, mean, 50_000_000, workers))
    assert [isinstance(each, str) for each in decoded] == [False, False, True, *[False] * 3]
    assert torch.equal(decoded[1], decoded[0])
    said = capsys.readouterr().err
    assert "2 pictures lack the last bytes of their file and are used without them: " in said
    assert f"{files[1]} ..." in said
    assert "1 pictures have a colour profile that cannot be used" in said


def test_sound_pictures_are_not_spoken_of(files: list[Path], capsys: pytest.CaptureFixture[str]):
    list(decode_files([files[0], files[3]], mean, 50_000_000, 0))
    assert capsys.readouterr().err == ""


def test_a_photo_above_the_limit_that_is_decoded_reduced_has_no_fault(tmp_path: Path):
    file = tmp_path / "large.jpg"
    file.write_bytes(encoded(picture((2000, 1500)), "JPEG"))
    assert [found.fault for found in examine_files([file], 1_000_000, 0)] == [None]
    (found,) = examine_files([file], 500_000, 0)
    assert found.fault is not None
    assert "2000 x 1500" in found.fault
