"""Random changes of pictures that leave their captions true: zoom, colours a little, blur.

Pictures are never mirrored, as captions say left and right, and hues stay, as captions name
colours. Each picture of a batch is changed by numbers of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import Augmentation
from training.contrastive.regions import NO_LABEL, Regions

#: Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
#: Pixels on each side of the middle that the blur reads.
REACH = 2


def augmented(
    pixels: Tensor, regions: Regions | None, settings: Augmentation
) -> tuple[Tensor, Regions | None]:
    """The pictures of a batch changed at random, and their boxes where they are then.

    Args:
        pixels: [B, 3, S, S] in 0..255.
        regions: The boxes of the pictures, or None.
        settings: How much; all 0 changes nothing.

    Returns:
        float32 [B, 3, S, S] in 0..255, or the pixels as they were; and the boxes.
    """
    if settings.crop > 0:
        pixels, regions = _zoomed(pixels.float(), regions, settings.crop)
    if settings.colour > 0:
        pixels = _tinted(pixels.float(), settings.colour)
    if settings.blur > 0:
        pixels = _blurred(pixels.float(), settings.blur)
    return pixels, regions


def _drawn(count: int, like: Tensor, *shape: int) -> Tensor:
    """Random numbers in 0..1, [count, *shape], the same on every kind of device."""
    return torch.rand(count, *shape).to(like.device)


def _zoomed(pixels: Tensor, regions: Regions | None, crop: float) -> tuple[Tensor, Regions | None]:
    """A random square of each picture, of a side of at least 1 - crop, resized to the whole."""
    side = 1 - crop * _drawn(len(pixels), pixels)  # [B]
    corner = (1 - side)[:, None] * _drawn(len(pixels), pixels, 2)  # [B, 2]: left, top
    # An affine grid counts from -1 to 1, from the middle.
    middle = 2 * corner + side[:, None] - 1
    grid = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    grid[:, 0, 0] = grid[:, 1, 1] = side
    grid[:, :, 2] = middle
    places = F.affine_grid(grid, list(pixels.shape), align_corners=False)
    zoomed = F.grid_sample(pixels, places, padding_mode="border", align_corners=False)
    if regions is not None:
        boxes = (regions.boxes - corner.repeat(1, 2)[:, None]) / side[:, None, None]
        middles = (boxes[..., :2] + boxes[..., 2:]) / 2
        lost = ((middles < 0) | (middles > 1)).any(-1)  # [B, K]: mostly outside now
        regions = Regions(
            boxes,
            regions.categories.masked_fill(lost, NO_LABEL),
            regions.attributes.masked_fill(lost, NO_LABEL),
        )
    return zoomed, regions


def _tinted(pixels: Tensor, most: float) -> Tensor:
    """Brightness, contrast and saturation multiplied by random factors of 1 - most to 1 + most."""
    factors = 1 + most * (2 * _drawn(len(pixels), pixels, 3, 1, 1, 1) - 1)
    brightness, contrast, saturation = factors.unbind(1)  # each [B, 1, 1, 1]
    weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
    grey = (pixels * weights).sum(1, keepdim=True)
    pixels = grey + saturation * (pixels - grey)
    mean = grey.mean((2, 3), keepdim=True)
    pixels = mean + contrast * (pixels - mean)
    return (brightness * pixels).clamp(0, 255)


def _blurred(pixels: Tensor, most: float) -> Tensor:
    """Each picture under a Gaussian of a random width, of up to `most` pixels."""
    width = (most * _drawn(len(pixels), pixels)).clamp(min=1e-3)[:, None]
    steps = torch.arange(-REACH, REACH + 1, device=pixels.device)
    kernel = (-(steps**2) / (2 * width**2)).softmax(1).repeat_interleave(3, 0)  # [3B, taps]
    flat = F.pad(pixels.flatten(0, 1)[None], (REACH,) * 4, mode="replicate")  # [1, 3B, ...]
    across = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    return F.conv2d(across, kernel[:, None, :, None], groups=len(kernel))[0].view_as(pixels)
