"""Pictures made worse in seven ways, each in five strengths (Hendrycks and Dietterich, 1903.12261).

A length is a share of the picture's shorter side, so that small and large pictures look alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

STRENGTHS = (1, 2, 3, 4, 5)
Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def blur(image: Image.Image, strength: int, _: np.random.Generator) -> Image.Image:
    """Gaussian blur of 0.3% to 5% of the side."""
    radius = (0.003, 0.006, 0.012, 0.025, 0.05)[strength - 1] * min(image.size)
    return image.filter(ImageFilter.GaussianBlur(radius))


def noise(image: Image.Image, strength: int, chance: np.random.Generator) -> Image.Image:
    """Gaussian noise of a standard deviation of 4% to 60% of white."""
    deviation = (0.04, 0.1, 0.2, 0.35, 0.6)[strength - 1] * 255
    values = np.asarray(image, np.float32)
    noisy = values + chance.normal(0, deviation, values.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, strength: int, _: np.random.Generator) -> Image.Image:
    """JPEG of quality 50 to 1."""
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=(50, 25, 12, 5, 1)[strength - 1])
    return Image.open(packed).convert("RGB")


def brightness(image: Image.Image, strength: int, _: np.random.Generator) -> Image.Image:
    """Darker: 80% to 5% of the light."""
    return ImageEnhance.Brightness(image).enhance((0.8, 0.6, 0.4, 0.2, 0.05)[strength - 1])


def rotation(image: Image.Image, strength: int, chance: np.random.Generator) -> Image.Image:
    """Turned by 5 to 90 degrees to one side or the other; what was outside is grey."""
    angle = (5, 15, 30, 60, 90)[strength - 1] * int(chance.choice((-1, 1)))
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


def occlusion(image: Image.Image, strength: int, chance: np.random.Generator) -> Image.Image:
    """A grey square on 2% to 60% of the picture."""
    share = (0.02, 0.08, 0.18, 0.35, 0.6)[strength - 1]
    width, height = (round(share**0.5 * side) for side in image.size)
    left = int(chance.integers(0, image.width - width + 1))
    top = int(chance.integers(0, image.height - height + 1))
    covered = image.copy()
    covered.paste((128, 128, 128), (left, top, left + width, top + height))
    return covered


def colour_cast(image: Image.Image, strength: int, _: np.random.Generator) -> Image.Image:
    """10% to 90% orange light: blue fades, and half as much of green."""
    share = (0.1, 0.25, 0.45, 0.7, 0.9)[strength - 1]
    light = np.array([1, 1 - share / 2, 1 - share], np.float32)
    return Image.fromarray((np.asarray(image, np.float32) * light).astype(np.uint8))


#: Name -> how it makes a picture worse, in a strength of `STRENGTHS`.
CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur,
    "noise": noise,
    "JPEG": jpeg,
    "brightness": brightness,
    "rotation": rotation,
    "occlusion": occlusion,
    "colour cast": colour_cast,
}
