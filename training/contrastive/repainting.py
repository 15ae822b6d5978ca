"""Things in other colours: repaints the things in boxes of pictures, for `clip.recolour`.

The colour of a thing is the one that is frequent in the boxes of its category and rare around them.
Only the pixels of that colour are repainted; their shading and everything else stay, so that the
picture looks natural. Changing all pixels of a box instead would show where the box is: an encoder
trained so ignored colours only inside such rectangles. It named 99% of those boxes right, but only
93% of the boxes of things in new colours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.contrastive.regions import NO_LABEL, Regions

#: Levels of each channel in the histograms of colours.
LEVELS = 8
#: Step in pixels, across and down, of the pixels that are read to find a thing's colour.
STRIDE = 3
#: Width of the surroundings of a box on each side, as a share of its width and height.
AROUND = 0.2
#: Distance in RGB, each 0..1, up to which a pixel is repainted fully; the share falls linearly to
#: 0 at 1.6 times this distance.
NEAR = 0.22


def repainted(pixels: Tensor, regions: Regions) -> Tensor:
    """Pictures with their things in random colours, one colour for each category and picture.

    Where a thing has the colour of its surroundings, parts of them in its box are repainted too.

    Args:
        pixels: RGB in 0..1, [B, 3, S, S].
        regions: Their boxes.

    Returns:
        RGB in 0..1, [B, 3, S, S].
    """
    categories = regions.categories
    coarse = pixels[:, :, ::STRIDE, ::STRIDE]
    side = pixels.shape[-1]
    fine, inside = (_within(regions.boxes, side, stride) for stride in (1, STRIDE))
    reach = AROUND * (regions.boxes[..., 2:] - regions.boxes[..., :2])
    wider = torch.cat([regions.boxes[..., :2] - reach, regions.boxes[..., 2:] + reach], -1)
    around = _within(wider, side, STRIDE)
    boxed = (inside & (categories != NO_LABEL)[..., None, None]).any(1)
    painted = pixels.clone()
    left = categories != NO_LABEL  # [B, K]: boxes that are not repainted yet
    while left.any():
        rows = left.any(1).nonzero()[:, 0]
        first = left[rows].int().argmax(1, keepdim=True)
        of_one = categories[rows] == categories[rows].gather(1, first)
        left[rows] &= ~of_one
        of_one = of_one[..., None, None]
        own = (inside[rows] & of_one).any(1)
        near = (around[rows] & of_one).any(1) & ~boxed[rows]
        old = _colour(coarse[rows], own, near)[..., None, None]  # [rows, 3, 1, 1]
        # Drawn from a wider range and clamped, so that white, black and full colours occur.
        drawn = torch.rand(len(rows), 3, 1, 1).to(pixels.device)
        new = (drawn * 1.5 - 0.25).clamp(0, 1)
        distance = (pixels[rows] - old).square().sum(1, keepdim=True).sqrt()
        share = ((1.6 * NEAR - distance) / (0.6 * NEAR)).clamp(0, 1)
        share = share * (fine[rows] & of_one).any(1).unsqueeze(1)
        painted[rows] += share * (new - old)
    return painted.clamp_(0, 1)


def _colour(pixels: Tensor, own: Tensor, near: Tensor) -> Tensor:
    """The colour [B, 3] that is more frequent in `own` than in `near`, both [B, S, S]."""
    levels = (pixels * LEVELS).long().clamp(max=LEVELS - 1)
    bins = ((levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]).flatten(1)
    more = _histogram(bins, own) - _histogram(bins, near)
    # The shades of a colour lie in neighbouring bins.
    cube = more.view(-1, 1, LEVELS, LEVELS, LEVELS)
    best = F.avg_pool3d(cube, 3, 1, 1, count_include_pad=False).flatten(1).argmax(1)
    levels = torch.stack([best // LEVELS**2, best // LEVELS % LEVELS, best % LEVELS], 1)
    colour = (levels + 0.5) / LEVELS
    for _ in range(2):  # move it to the mean of the pixels near it
        distance = (pixels - colour[..., None, None]).square().sum(1).sqrt()
        members = ((distance < NEAR) & own).flatten(1).unsqueeze(1)
        mean = (pixels.flatten(2) * members).sum(2) / members.sum(2).clamp(min=1)
        colour = torch.where(members.any(2), mean, colour)
    return colour


def _histogram(bins: Tensor, chosen: Tensor) -> Tensor:
    """The share of each bin [B, bins] among the chosen pixels [B, S, S]."""
    weights = chosen.flatten(1).float()
    counts = weights.new_zeros(len(bins), LEVELS**3).scatter_add_(1, bins, weights)
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def _within(boxes: Tensor, side: int, stride: int) -> Tensor:
    """Whether every `stride`-th pixel lies in each box, bool [B, K, rows, columns]."""
    middles = (torch.arange(0, side, stride, device=boxes.device) + 0.5) / side
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(2)  # each [B, K, 1]
    across, down = (middles >= left) & (middles < right), (middles >= top) & (middles < bottom)
    return down.unsqueeze(-1) & across.unsqueeze(-2)
