"""Things in other colours: what is painted, and what stays as it is."""

from __future__ import annotations

import torch

from training.contrastive.regions import NO_LABEL, Regions
from training.contrastive.repainting import repainted

RED, GREEN, BLUE, BLACK = torch.eye(4, 3)


def picture() -> tuple[torch.Tensor, Regions]:
    """Two red things and a blue one, each with a black middle, on green; 48 x 48."""
    pixels = GREEN[:, None, None].repeat(1, 48, 48)
    for colour, top, left in ((RED, 6, 6), (RED, 6, 28), (BLUE, 28, 6)):
        pixels[:, top + 2 : top + 10, left + 2 : left + 10] = colour[:, None, None]
        pixels[:, top + 5 : top + 7, left + 5 : left + 7] = 0
    places = [[6, 6, 18, 18], [28, 6, 40, 18], [6, 28, 18, 40], [0, 0, 0, 0]]
    names = torch.tensor([[1, 1, 0, NO_LABEL]])
    return pixels[None], Regions(torch.tensor([places]) / 48, names, names)


def test_things_change_and_everything_else_stays():
    torch.manual_seed(0)
    before, regions = picture()
    after = repainted(before, regions)
    for colour in (GREEN, BLACK):
        stays = (before[0] == colour[:, None, None]).all(0)
        assert torch.equal(after[0][:, stays], before[0][:, stays])
    assert torch.equal(before, picture()[0])  # the caller keeps his own


def test_things_of_a_category_take_one_colour_and_others_another():
    torch.manual_seed(0)
    before, regions = picture()
    after = repainted(before, regions)[0]
    reds = after[:, (before[0] == RED[:, None, None]).all(0)]
    blues = after[:, (before[0] == BLUE[:, None, None]).all(0)]
    assert torch.allclose(reds, reds[:, :1].expand_as(reds), atol=1e-5)
    assert torch.allclose(blues, blues[:, :1].expand_as(blues), atol=1e-5)
    assert (reds[:, 0] - RED).abs().max() > 0.1
    assert (blues[:, 0] - BLUE).abs().max() > 0.1
    assert (reds[:, 0] - blues[:, 0]).abs().max() > 0.1


def test_shades_of_a_thing_stay_as_far_apart():
    before, regions = picture()
    before[0, 0, 8:12, 8:16] *= 0.9  # the upper half of the first thing lies in the shade
    before[0, :, 11:13, 11:13] = 0
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        upper, lower = repainted(before, regions)[0, :, [9, 15], 9].unbind(1)
        inner = (torch.minimum(upper, lower) > 0) & (torch.maximum(upper, lower) < 1)
        found += ((lower - upper) - torch.tensor([0.1, 0.0, 0.0]))[inner].tolist()
    assert len(found) > 20
    assert max(map(abs, found)) < 0.01


def test_a_picture_without_boxes_is_the_same():
    pixels, regions = picture()
    none = torch.full_like(regions.categories, NO_LABEL)
    assert torch.equal(repainted(pixels, Regions(regions.boxes, none, none)), pixels)
