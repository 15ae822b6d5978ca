"""From a decoded image to the pixels that a CLIP encoder takes.

The image is resized, cropped and normalised as CLIP was trained (Radford et al. 2021, arXiv
2103.00020). The pixels equal those of Hugging Face's `CLIPImageProcessorPil`. Needs torch and
Pillow only.

Axes: S side of the encoder's image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from model.refusal import Refusal

#: Where the ratio of the sides is larger, only the crop is resized: see `to_square`.
ORDINARY_ASPECT = 8

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels of its encoder; stored with the weights.

    Attributes:
        size: S, the side of the encoder's square image, in pixels, from 1 to 4096.
        mean: Subtracted from R, G and B, which are from 0 to 1.
        std: R, G and B are then divided by it; above 0.
        resample: The filter: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        crop: Resize the shorter side to S and crop the centre. If false, resize to S x S.

    Raises:
        Refusal: A value that no encoder can have been trained with.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: str = "bicubic"
    crop: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("mean", "std"):  # JSON brings lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 1 <= self.size <= 4096:
            raise Refusal(f"preprocessing size is {self.size}; it must be from 1 to 4096 pixels")
        if self.resample not in _RESAMPLE:
            known = ", ".join(_RESAMPLE)
            raise Refusal(f"preprocessing resample is {self.resample!r}; it must be one of {known}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise Refusal(
                f"preprocessing mean {self.mean} and std {self.std} must be three numbers each, "
                "std above 0"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` wrote.

        Raises:
            Refusal: An unknown or missing name, or a value that cannot be.
        """
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise Refusal(f"preprocessing {values!r} cannot be read: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain names, numbers and lists, as written to JSON."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize, crop and normalise an image for its encoder.

    Args:
        image: An image of mode RGB, as `load_image` gives it.
        preprocessing: That of the encoder.

    Returns:
        float32 [3, S, S], normalised.

    Source: `CLIPImageProcessorPil` in Hugging Face transformers, which it equals within 1e-5.
    """
    square = to_square(image, preprocessing)
    side = preprocessing.size
    raw = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return normalized(raw.view(side, side, 3), preprocessing)


def normalized(raw: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """The pixels of images that are resized and cropped already.

    Args:
        raw: uint8 [..., S, S, 3], R, G and B.
        preprocessing: That of the encoder.

    Returns:
        float32 [..., 3, S, S], normalised.
    """
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    # In place, which takes half the time of a new tensor for each step.
    moved = raw.movedim(-1, -3)
    pixels = torch.empty(moved.shape).copy_(moved)
    return pixels.div_(255).sub_(mean).div_(std)


def to_square(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize and crop an image to S x S, still as 8-bit RGB.

    The shorter side is resized to S and the centre is cropped. Of a very long image the resized
    one would be huge: 1 x 20000 pixels at S = 224 become more than a gigabyte. There only the crop
    is computed. Other images are resized whole, which gives the same bits as the reference.
    """
    side = preprocessing.size
    filter_ = _RESAMPLE[preprocessing.resample]
    if not preprocessing.crop:
        return image.resize((side, side), filter_)
    width, height, left, top = _resized(image.size, side)
    if max(image.size) <= ORDINARY_ASPECT * min(image.size):
        resized = image.resize((width, height), filter_)
        return resized.crop((left, top, left + side, top + side))
    across, down = image.width / width, image.height / height  # source pixels for a resized one
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return image.resize((side, side), filter_, box=box)


def crop_of(
    size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[float, float, float, float]:
    """The part of an image that its encoder sees.

    Args:
        size: Width and height of the image, in any unit.
        preprocessing: That of the encoder.

    Returns:
        x and y of its upper left corner, its width and its height, as fractions of the image's
        width and height, from 0 to 1.
    """
    side = preprocessing.size
    if not preprocessing.crop:
        return 0.0, 0.0, 1.0, 1.0
    width, height, left, top = _resized(size, side)
    return left / width, top / height, side / width, side / height


def _resized(size: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Width and height with a shorter side of `side`; x and y of the square in the centre."""
    short, long = sorted(size)
    resized_long = side * long // short
    width, height = (side, resized_long) if size[0] <= size[1] else (resized_long, side)
    return width, height, (width - side) // 2, (height - side) // 2
