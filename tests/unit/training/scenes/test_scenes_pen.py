"""The pen draws boxes of every size: small things far away are only a few pixels high."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from training.scenes.drawing.paint import Light
from training.scenes.drawing.pen import Pen

LIGHT = Light((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), False)


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_a_block_of_any_size_can_be_drawn(radius: float):
    for width in range(1, 14):
        for height in range(1, 14):
            image = Image.new("RGB", (20, 20), "white")
            pen = Pen(ImageDraw.Draw(image), (3, 3, width, height), False, 1, LIGHT)
            pen.block(0, 0, 1, 1, (200, 0, 0), (0, 0, 0), radius)
            assert image.getpixel((3 + width // 2, 3 + height // 2)) != (255, 255, 255)
