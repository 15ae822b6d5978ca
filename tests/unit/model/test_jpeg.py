"""JPEGs that are larger than the limit but decoded reduced, and JPEGs without their last bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageChops

from model.image.decode import load_image, open_image
from model.image.refusals import ImageRefusal
from tests.pictures import BLUE, RED, assert_picture, assert_refused, encoded, half, photo, picture

LIMIT = 50_000_000


def declared(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header gives another size."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_a_phone_s_photo_is_decoded_reduced():
    data = encoded(picture((8192, 6144)), "JPEG")
    opened = open_image(data, LIMIT, side=224)
    assert (opened.image.size, opened.warnings) == ((1024, 768), [])
    assert opened.memory < 12_000_000
    assert_picture(opened.decode(), BLUE, RED)


def test_a_jpeg_that_is_not_reduced_has_the_usual_limit():
    data = encoded(picture((2000, 1000)), "JPEG")
    message = assert_refused(data, "image_too_large", max_pixels=1_999_999)
    assert "2000 x 1000 = 2000000 pixels; the limit is 1999999" in message
    assert load_image(data, max_pixels=500_000, side=150).size == (1000, 500)
    with pytest.raises(ImageRefusal, match=r"1000 x 500 = 500000 \(after reducing by 2\) pixels"):
        open_image(data, 499_999, side=150)


def test_200_megapixels_are_accepted_and_more_than_five_times_the_limit_refused():
    data = encoded(picture(), "JPEG")
    assert open_image(declared(data, 16_384, 12_288), LIMIT, 224).image.size == (2048, 1536)
    with pytest.raises(ImageRefusal, match="20000 x 15000 .* the limit is 250000000") as caught:
        open_image(declared(data, 20_000, 15_000), LIMIT, 224)
    assert caught.value.status == 413


def test_a_progressive_jpeg_is_limited_by_the_memory_of_its_coefficients():
    data = encoded(picture(), "JPEG", progressive=True)  # 1.5 coefficients a pixel
    opened = open_image(declared(data, 10_000, 10_000), LIMIT, 224)
    assert opened.memory >= 10_000 * 10_000 * 3
    with pytest.raises(ImageRefusal, match="progressive JPEG of 16384 x 12288 .*603979776 bytes"):
        open_image(declared(data, 16_384, 12_288), LIMIT, 224)


@pytest.mark.parametrize("side", [None, 32])
@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark_is_whole(
    progressive: bool, mode: str, cut: int, side: int | None
):
    for size in ((200, 150), (40, 30), (1, 1)):
        noise = Image.effect_noise(size, 80).convert(mode)
        data = encoded(noise, "JPEG", progressive=progressive)
        opened = open_image(data[:-cut], side=side)
        assert opened.warnings == ["truncated"]
        expected = load_image(data, side=None if progressive else side)
        assert opened.decode().tobytes() == expected.tobytes()


@pytest.mark.parametrize("cut", [3, 4, 100, 1000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_jpeg_without_part_of_its_last_rows_is_refused(cut: int, progressive: bool):
    # Always the same noise: of some, the last byte holds nothing that a decoder needs.
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "JPEG", progressive=progressive)
    assert_refused(data[:-cut], "image_undecodable")


@pytest.mark.parametrize("side", [None, 64])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_99_of_100_rows_is_accepted_and_one_with_fewer_refused(
    progressive: bool, side: int | None
):
    data = photo(progressive=progressive)
    whole = load_image(data, side=None if progressive else side)
    opened = open_image(data[:-400], side=side)  # less than one row of blocks, 16 of 1800 pixels
    seen = opened.decode()
    assert opened.warnings == ["truncated"]
    rows = ImageChops.difference(seen, whole).getbbox()
    assert rows is None or rows[1] >= 0.99 * whole.height
    for cut in (len(data) // 20, len(data) // 2):
        with pytest.raises(ImageRefusal, match="cut short"):
            open_image(data[:-cut], side=side).decode()


@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_photo_is_refused_at_every_size(progressive: bool):
    for side in (None, 32, 224):
        with pytest.raises(ImageRefusal, match="cut short"):
            open_image(half(photo(progressive=progressive)), side=side).decode()


def test_a_progressive_jpeg_between_two_scans_is_refused():
    data = photo(progressive=True)
    ends = [at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xc4", b"\xff\xda")]
    assert len(ends) > 10
    for end in ends:
        assert_refused(data[:end], "image_undecodable")
