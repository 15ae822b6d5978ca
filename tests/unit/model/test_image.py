"""Pictures of every kind people send: decoded upright to RGB, or refused with a reason."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import struct
import time
import zlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from model.image.decode import BYTES_PER_PIXEL, load_image, open_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.image.refusals import FORMATS, ImageRefusal
from model.refusal import Refusal
from tests.pictures import (
    BLUE,
    HEIC_HEADER,
    OTHER_FORMATS,
    RED,
    arithmetic_jpeg,
    assert_picture,
    assert_refused,
    colour_profile,
    encoded,
    jpeg_of_scans,
    jpeg_with,
    picture,
    png_with,
    run_length_bmp,
    striped_tiff,
    tiled_tiff,
)
from training.scenes import draw_scene, sample_scene

CLIP = Preprocessing(
    size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


@pytest.mark.parametrize("held", [bytes, bytearray])
@pytest.mark.parametrize("format_", FORMATS)
def test_every_accepted_format_is_decoded(format_: str, held: type[bytes | bytearray]):
    assert_picture(load_image(held(encoded(picture(), format_))), BLUE, RED)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_colour_spaces_of_tiff_become_rgb(mode: str):
    assert_picture(load_image(encoded(picture().convert(mode), "TIFF")), BLUE, RED)


def test_a_cmyk_jpeg_with_its_inverted_inks_becomes_rgb():
    data = encoded(picture().convert("CMYK"), "JPEG")
    assert b"Adobe" in data  # the marker that says the inks are stored inverted
    assert_picture(load_image(data), BLUE, RED)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_and_palette_pictures_become_rgb(mode: str):
    source = picture().convert(mode)
    expected = source.convert("RGB")
    assert load_image(encoded(source, "PNG")).tobytes() == expected.tobytes()


def test_sixteen_bits_are_scaled_not_clipped():
    for format_ in ("PNG", "TIFF"):
        image = load_image(encoded(Image.new("I;16", (60, 40), 40_000), format_))
        assert image.getpixel((0, 0)) == (155, 155, 155)  # 40000 / 65535 of 255


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [("I", 200, 200), ("I", 30_000, 116), ("F", 0.5, 127), ("F", 200.0, 200)],
)
def test_wide_grey_values_of_tiff_are_scaled(mode: str, value: float, grey: int):
    image = load_image(encoded(Image.new(mode, (60, 40), value), "TIFF"))
    assert image.getpixel((0, 0)) == (grey, grey, grey)


def test_grey_values_that_are_no_numbers_are_refused():
    assert_refused(encoded(Image.new("F", (60, 40), float("nan")), "TIFF"), "image_undecodable")


def test_cielab_colours_are_refused_by_name():
    message = assert_refused(encoded(Image.new("LAB", (60, 40)), "TIFF"), "image_undecodable")
    assert "CIELAB" in message


@pytest.mark.parametrize(
    ("mode", "format_"),
    [("P", "PNG"), ("L", "PNG"), ("RGB", "PNG"), ("P", "GIF")],
)
def test_a_transparent_colour_shows_white(mode: str, format_: str):
    source = picture().convert(mode)
    data = encoded(source, format_, transparency=source.getpixel((5, 5)))
    image = load_image(data)
    assert image.getpixel((5, 5)) == (255, 255, 255)
    assert image.getpixel((55, 35)) == source.convert("RGB").getpixel((55, 35))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(format_: str):
    source = picture()
    source.putalpha(Image.new("L", source.size, 128))
    options = {"lossless": True} if format_ == "WEBP" else {}
    half = tuple(round(255 + (c - 255) * 128 / 255) for c in RED)
    seen = load_image(encoded(source, format_, **options)).getpixel((55, 35))
    assert max(abs(a - b) for a, b in zip(seen, half, strict=True)) <= 1


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(format_: str):
    frames = [Image.new("RGB", (60, 40), "green")]
    data = encoded(picture(), format_, save_all=True, append_images=frames)
    assert_picture(load_image(data), BLUE, RED)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_once(format_: str, orientation: int):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the camera was turned one way, the file holds the other
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = picture() if undo is None else picture().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format_ == "HEIF":  # its writer turns the mark of the image into a rotation of its own
        stored.info["exif"] = exif.tobytes()
        data = encoded(stored, format_)
    else:
        data = encoded(stored, format_, exif=exif)
    image = load_image(data)
    assert image.size == (60, 40)
    assert_picture(image, BLUE, RED)


def test_broken_metadata_does_not_lose_a_sound_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "JPEG", exif=exif)
    start = data.index(b"Exif\0\0") + 6
    broken = data[:start] + b"\xff" * 8 + data[start + 8 :]
    assert load_image(broken).size == (60, 40)


def test_one_pixel_is_a_picture():
    pixels = to_pixels(load_image(encoded(Image.new("RGB", (1, 1), "red"), "PNG")), CLIP)
    assert pixels.shape == (3, 224, 224)


def test_nothing_is_refused_as_empty():
    assert "0 bytes" in assert_refused(b"", "empty")


def test_text_is_no_picture():
    assert "b'hello'" in assert_refused(b"hello", "image_undecodable")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_picture_cut_short_is_refused(format_: str, part: float):
    data = encoded(Image.effect_noise((60, 40), 80).convert("RGB"), format_)
    message = assert_refused(data[: int(len(data) * part)], "image_undecodable")
    assert "cut short" in message


@pytest.mark.parametrize(
    ("format_", "name"),
    [("JPEG2000", "JPEG 2000"), ("PDF", "PDF"), ("EPS", "Post"), ("ICO", "ICO")],
)
def test_other_formats_are_named_and_refused(format_: str, name: str):
    assert name in assert_refused(encoded(picture(), format_), "image_format")


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_files_are_named_and_refused(name: str):
    assert name in assert_refused(OTHER_FORMATS[name], "image_format")


def test_xml_that_is_no_svg_is_not_called_one():
    assert "b'<?xml" in assert_refused(b'<?xml version="1.0"?><gpx/>', "image_undecodable")


def test_a_heic_file_of_nothing_but_its_header_is_damaged():
    assert "cut short" in assert_refused(HEIC_HEADER, "image_undecodable")


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
def test_a_size_that_the_pixels_do_not_have_does_not_pass_the_limit(format_: str):
    """The header says 64 x 64; the decoder would find 3000 x 3000."""
    data = encoded(Image.new("RGB", (3000, 3000), "red"), format_)
    at = data.index(b"ispe") + 8
    small = data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]
    opened = open_image(small)
    if format_ == "HEIF":
        with pytest.raises(ImageRefusal):
            opened.decode()
    else:  # decoded and scaled to 64 x 64; so memory for the largest AVIF is reserved
        assert opened.memory > 3000 * 3000 * BYTES_PER_PIXEL
        assert opened.decode().size == (64, 64)


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
def test_too_large_an_avif_or_heic_is_refused_from_its_header(format_: str):
    data = encoded(Image.new("RGB", (2000, 1000)), format_)
    assert "2000 x 1000" in assert_refused(data, "image_too_large", max_pixels=1_999_999)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \t\r\n\n"])
@pytest.mark.parametrize("format_", FORMATS)
def test_blank_lines_before_a_picture_are_left_out(format_: str, blank: bytes):
    assert_picture(load_image(blank + encoded(picture(), format_)), BLUE, RED)
    assert "0 bytes" in assert_refused(blank, "empty")


def test_too_many_pixels_are_refused_from_the_header_alone():
    data = encoded(Image.new("1", (2000, 1000)), "PNG")
    message = assert_refused(data[:60], "image_too_large", max_pixels=1_999_999)
    assert "2000 x 1000" in message
    assert "1999999" in message
    assert load_image(data, max_pixels=2_000_000).size == (2000, 1000)


def test_a_bomb_beyond_pillows_own_guard_is_refused_the_same_way():
    data = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(data) < 100_000
    assert_refused(data, "image_too_large")
    assert_refused(data, "image_too_large", max_pixels=10**12)


def test_a_jpeg_of_too_many_scans_is_refused():
    assert "scans; the limit is 64" in assert_refused(jpeg_of_scans(65), "image_too_large")
    assert_picture(load_image(jpeg_of_scans(64)), BLUE, RED)
    # A picture as large as is allowed, which 64 scans would keep busy for long: 2,400 pixels here.
    assert_picture(load_image(jpeg_of_scans(24), max_pixels=2400), BLUE, RED)
    assert "25 scans; the limit is 24" in assert_refused(
        jpeg_of_scans(25), "image_too_large", max_pixels=2400
    )
    inks = encoded(picture().convert("CMYK"), "JPEG", progressive=True)
    assert load_image(inks, max_pixels=2400).size == (60, 40)


def test_bytes_after_a_jpeg_or_inside_its_parts_are_no_scans():
    video = b"\xff\xda" * 1000  # phones put a film behind a picture, and other pictures into it
    assert_picture(load_image(encoded(picture(), "JPEG") + video), BLUE, RED)
    inside = jpeg_with(b"\xff\xe2" + struct.pack(">H", 2 + len(video)) + video, 1)
    assert_picture(load_image(inside), BLUE, RED)


@pytest.mark.parametrize("part", [b"\xff\xfe\0\x02", b"\0", b"\xff\0", b"\xff\xd9"])
def test_a_jpeg_of_too_many_parts_is_refused(part: bytes):
    few, many = (jpeg_with(part, count) for count in (10_000, 200_000))
    if part == b"\xff\xd9":  # an end before the picture
        assert_refused(few, "image_undecodable")
    else:
        assert_picture(load_image(few), BLUE, RED)
    assert "more than 65536 parts" in assert_refused(many, "image_too_large")


def test_a_jpeg_of_too_many_parts_after_its_first_scan_is_refused():
    data = jpeg_of_scans(2)
    last_scan = data.rindex(b"\xff\xda")
    few, many = (
        data[:last_scan] + count * b"\xff\xfe\0\x02" + data[last_scan:]
        for count in (10_000, 200_000)
    )
    assert_picture(load_image(few), BLUE, RED)
    assert "more than 65536 parts" in assert_refused(many, "image_too_large")


@pytest.mark.parametrize("part", [b"\xff\x01", b"\xff\xfe\0\x02", b"a", b"\xff\0", b"\xff"])
def test_what_lies_between_the_parts_of_a_jpeg_takes_little_time(part: bytes):
    """Four megabytes of it, which have one bound wherever they are."""
    filler = part * (4_000_000 // len(part))
    progressive = encoded(picture(), "JPEG", progressive=True)
    data = encoded(picture(), "JPEG")
    last_scan = progressive.rindex(b"\xff\xda")
    for place, file in ((20, data), (len(data) - 2, data), (last_scan, progressive)):
        before = time.process_time()
        with contextlib.suppress(ImageRefusal):
            load_image(file[:place] + filler + file[place:])
        assert time.process_time() - before < 1


def test_a_jpeg_of_too_many_exif_parts_is_refused():
    exif = b"\xff\xe1\0\x0cExif\0\0AAAA"
    assert_picture(load_image(jpeg_with(exif, 64)), BLUE, RED)
    message = assert_refused(jpeg_with(exif, 65), "image_too_large")
    assert "more than 64 EXIF parts" in message


def test_arithmetic_coding_is_refused():
    assert "arithmetic coding" in assert_refused(arithmetic_jpeg(), "image_format")


def test_a_png_of_too_many_parts_is_refused():
    assert_picture(load_image(png_with(b"teSt", b"", 60_000)), BLUE, RED)
    assert "65536 parts" in assert_refused(png_with(b"teSt", b"", 70_000), "image_too_large")
    assert_picture(load_image(png_with(b"iCCP", colour_profile(), 1)), BLUE, RED)
    two = png_with(b"iCCP", colour_profile(), 2)
    assert "more than 1 colour profile" in assert_refused(two, "image_too_large")


def test_a_tiff_of_many_jpeg_strips_is_no_jpeg_of_many_scans():
    tall = Image.effect_noise((16, 3000), 80).convert("RGB")
    data = encoded(tall, "TIFF", compression="jpeg", strip_size=16 * 3 * 16)
    assert data.count(b"\xff\xda") > 64
    assert load_image(data).size == (16, 3000)


def test_tiles_far_larger_than_their_picture_are_refused():
    assert load_image(tiled_tiff(256, 256)).size == (1, 1)
    message = assert_refused(tiled_tiff(2048, 2048), "image_too_large", max_pixels=2_000_000)
    assert "tiles of 2048 x 2048 (1): 4194304 pixels; the limit is 4000000" in message
    assert load_image(tiled_tiff(16, 16, 3000)).size == (16 * 2999 + 1, 1)
    # Each of these is as large as a picture may be.
    message = assert_refused(tiled_tiff(16, 3_000_000, 5), "image_too_large")
    assert "tiles of 16 x 3000000 (5): 240000000 pixels; the limit is 100000000" in message


def test_tiles_that_share_their_bytes_are_refused():
    message = assert_refused(tiled_tiff(256, 256, 30, shared=True), "image_too_large")
    assert "the 30 strips or tiles of the TIFF share their bytes" in message


def test_too_many_strips_are_refused():
    assert load_image(striped_tiff(10_000)).size == (1, 10_000)
    assert "65536 strips or tiles" in assert_refused(striped_tiff(70_000), "image_too_large")


def test_the_other_pages_of_a_tiff_are_not_counted():
    pages = [picture()] * 70
    data = encoded(picture(), "TIFF", compression="jpeg", save_all=True, append_images=pages)
    assert data.count(b"\xff\xda") > 64
    assert load_image(data).size == (60, 40)


def test_a_png_with_a_long_packed_text_says_so():
    text = png_with(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 << 20)), 1)
    assert "larger than 1 MB; save it without" in assert_refused(text, "image_too_large")


def test_a_gif_of_too_many_blocks_is_refused():
    data = encoded(picture(), "GIF")
    start = data.index(b",")
    few, many = (
        data[:start] + b"!\xfe" + count * b"\x01c" + b"\0" + data[start:]
        for count in (200_000, 300_000)
    )
    assert_picture(load_image(few), BLUE, RED)
    assert "more than 262144 blocks" in assert_refused(many, "image_too_large")


def test_a_large_bmp_of_runs_is_refused():
    assert load_image(run_length_bmp(1920 * 1080)).size == (1920 * 1080, 1)
    message = assert_refused(run_length_bmp((1 << 21) + 1), "image_too_large")
    assert "run-length encoded BMP of 2097153 pixels" in message
    idle = run_length_bmp(60, b"\xff\x00" * (1 << 21))  # runs behind the end of the line
    assert "the limit of each is 2097152" in assert_refused(idle, "image_too_large")


@pytest.mark.parametrize("part", ["list of tags", "strip"])
def test_a_place_beyond_any_file_is_damage(part: str):
    data = bytearray(encoded(picture(), "TIFF", big_tiff=True))
    (at,) = struct.unpack_from("<Q", data, 8)
    (number,) = struct.unpack_from("<Q", data, at)
    if part == "list of tags":
        struct.pack_into("<Q", data, 8, 2**63 + 9)
    for entry in range(at + 8, at + 8 + 20 * number, 20):
        if part == "strip" and data[entry : entry + 2] == struct.pack("<H", 273):
            struct.pack_into("<HHQQ", data, entry, 273, 16, 1, 2**63 + 9)
    assert_refused(bytes(data), "image_undecodable")


def png_chunks(mode: str, **changes: bytes | None) -> bytes:
    """A PNG with chunks replaced by name, or removed (None)."""
    data = encoded(picture().convert(mode), "PNG", transparency=3)
    made, at = data[:8], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        content = changes.get(kind.decode(), data[at + 8 : end - 4])
        if content is not None:
            check = zlib.crc32(kind + content)
            made += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        at = end
    return made


@pytest.mark.parametrize("changes", [{"PLTE": None}, {"tRNS": bytes(300)}])
def test_a_png_whose_palette_is_damaged_is_refused(changes: dict[str, bytes | None]):
    assert load_image(png_chunks("P")).size == (60, 40)
    assert_refused(png_chunks("P", **changes), "image_undecodable")


def test_a_colour_profile_cut_short_behind_the_pixels_is_refused():
    data = encoded(picture(), "PNG")
    profile = b"iCCPname\0"
    chunk = struct.pack(">I", len(profile) - 4) + profile
    chunk += struct.pack(">I", zlib.crc32(profile))
    assert_refused(data[:-12] + chunk + data[-12:], "image_undecodable")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, AttributeError, KeyError])
@pytest.mark.parametrize("call", ["open", "load", "convert"])
def test_a_fault_that_is_not_the_file_s_is_not_called_damage(
    call: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    """Pillow meets a machine out of memory, or a mistake in a program."""

    def failing(*given: Any, **more: Any) -> Any:
        raise error("not the file's fault")

    data = encoded(picture().convert("L"), "PNG")
    owner = {"open": Image, "load": PngImagePlugin.PngImageFile, "convert": Image.Image}[call]
    monkeypatch.setattr(owner, call, failing)
    with pytest.raises(error, match="not the file's fault"):
        load_image(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_refused_or_decoded_but_never_crashes(data: st.DataObject):
    raw = bytearray(encoded(picture((24, 16)), data.draw(st.sampled_from(FORMATS))))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = load_image(bytes(raw))
    except ImageRefusal:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize(
    "size", [(224, 224), (640, 480), (333, 517), (100, 90), (1, 1), (31, 240), (1000, 131)]
)
@pytest.mark.parametrize("side", [64, 224])
def test_pixels_equal_the_reference(size: tuple[int, int], side: int):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    generator = random.Random(str((size, side)))
    image = Image.frombytes("RGB", size, generator.randbytes(size[0] * size[1] * 3))
    reference = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    expected = reference(image, return_tensors="pt")["pixel_values"][0]
    ours = to_pixels(image, Preprocessing(side, CLIP.mean, CLIP.std))
    assert ours.shape == (3, side, side)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (37, 911), (10, 1999)])
def test_resizing_only_the_crop_of_a_long_picture_gives_the_same_pixels(size: tuple[int, int]):
    image = Image.effect_noise(size, 80).convert("RGB")
    width, height = (side * 32 // min(size) for side in size)
    plain = image.resize((width, height), Image.Resampling.BICUBIC)
    if size[0] < size[1]:
        plain = plain.crop((0, (plain.height - 32) // 2, 32, (plain.height - 32) // 2 + 32))
    else:
        plain = plain.crop(((plain.width - 32) // 2, 0, (plain.width - 32) // 2 + 32, 32))
    unit = Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    expected = to_pixels(plain, unit)
    difference = (to_pixels(image, unit) - expected).abs()
    # Pillow may take the two directions in the other order, which clips overshoot differently.
    assert difference.mean() < 1 / 255
    assert difference.max() < 0.1


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 60_000)])
def test_extreme_shapes_need_little_memory(size: tuple[int, int]):
    import resource

    image = Image.new("RGB", size, "red")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert to_pixels(image, CLIP).shape == (3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_without_a_crop_the_picture_is_squeezed():
    whole = Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop=False)
    pixels = to_pixels(picture((90, 30)), whole)
    assert pixels[:, 5, 5].tolist() == pytest.approx([c / 255 for c in BLUE], abs=0.01)
    assert pixels[:, 28, 28].tolist() == pytest.approx([c / 255 for c in RED], abs=0.01)


def test_preprocessing_survives_json():
    import json

    assert Preprocessing.from_dict(json.loads(json.dumps(CLIP.to_dict()))) == CLIP


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"resample": "cubic"},
        {"std": [1, 0, 1]},
        {"mean": [0.5]},
        {"mean": None},
        {"sise": 3},
    ],
)
def test_preprocessing_that_cannot_be_is_refused(wrong: dict[str, Any]):
    with pytest.raises(Refusal):
        Preprocessing.from_dict({**CLIP.to_dict(), **wrong})


@pytest.mark.parametrize("size", [(1800, 1400), (1400, 2100)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_decoded_smaller_looks_the_same(size: tuple[int, int], mode: str):
    """The difference stays well below that between two good filters."""
    drawn = draw_scene(sample_scene(random.Random(3), "test"), *size)
    grain = Image.effect_noise(size, 25).convert("RGB")
    data = encoded(Image.blend(drawn, grain, 0.25).convert(mode), "JPEG", quality=90)
    whole, small = load_image(data), load_image(data, side=CLIP.size)
    assert min(small.size) >= 3 * CLIP.size
    assert min(small.size) < min(whole.size)
    plain = Preprocessing(CLIP.size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    expected = to_pixels(whole, plain)
    noise = (to_pixels(whole, dataclasses.replace(plain, resample="lanczos")) - expected).abs()
    change = (to_pixels(small, plain) - expected).abs()
    assert change.mean() < noise.mean()
    assert change.max() < noise.max()
