"""On which side of a thing its neighbour is, and pictures mirrored so that it is on either side.

A patch that carries what it belongs to still leaves it to the language model to compare places. So
the region loss also reads from each patch in a box where the nearest thing of another category is.
That is known from the boxes alone. In a data set in which dogs never stand left of anything, an
encoder would answer by the dog. Mirrored pictures prevent that: their things stand on the other
side. Their captions, which may say "left", are not read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Where the neighbour is: the boxes lie side by side, or else one has its lower edge further down;
#: or there is none.
RIGHT, LEFT, FURTHER_DOWN, FURTHER_UP, ALONE = range(5)
DIRECTIONS = 5


#: An offset of this share of the picture is 1.
UNIT = 0.25


class Neighbours(NamedTuple):
    """Where the nearest thing of another category is.

    Attributes:
        directions: int64 [B, K], one of `DIRECTIONS` numbers for each box.
        offsets: How far its middle is to the right, and its lower edge further down, in `UNIT`s,
            float [B, K, 2]; 0 where there is no such thing.
    """

    directions: Tensor
    offsets: Tensor


def neighbours(boxes: Tensor, categories: Tensor, no_label: int) -> Neighbours:
    """Where the nearest thing of another category is.

    All boxes of a category in a picture count as one that holds them all: of a row of trees behind
    a house each is behind it.

    Args:
        boxes: Left, top, right, bottom, [B, K, 4].
        categories: Of each box, [B, K]; `no_label` where there is no box.
        no_label: The label of what is not known.

    Returns:
        See `Neighbours`; the direction is `no_label` where there is no box.
    """
    same = categories[:, :, None] == categories[:, None]  # [B, K, K]
    known = categories != no_label
    boxes = boxes[:, None].expand(*same.shape, 4)
    low = boxes[..., :2].masked_fill(~same[..., None], torch.inf).amin(2)  # [B, K, 2]
    high = boxes[..., 2:].masked_fill(~same[..., None], -torch.inf).amax(2)
    middle = (low + high) / 2
    distance = torch.cdist(middle, middle)
    other = ~same & known[:, None] & known[:, :, None]
    distance, nearest = distance.masked_fill(~other, torch.inf).min(2)  # [B, K]
    index = nearest[..., None].expand_as(low)
    other_low, other_high = low.gather(1, index), high.gather(1, index)
    found = torch.where(high[..., 1] < other_high[..., 1], FURTHER_DOWN, FURTHER_UP)
    found = torch.where(high[..., 0] <= other_low[..., 0], RIGHT, found)
    found = torch.where(other_high[..., 0] <= low[..., 0], LEFT, found)
    found = found.masked_fill(distance.isinf(), ALONE).masked_fill(~known, no_label)
    across = middle.gather(1, index)[..., 0] - middle[..., 0]
    offsets = torch.stack([across, other_high[..., 1] - high[..., 1]], -1) / UNIT
    return Neighbours(found, offsets.masked_fill(distance.isinf()[..., None], 0.0))
