"""Random changes of pictures leave captions and boxes true."""

from __future__ import annotations

import pytest
import torch

from training.config import Augmentation
from training.contrastive.augmentation import augmented
from training.contrastive.regions import NO_LABEL, Regions

NONE = Augmentation(0.0, 0.0, 0.0)


def square() -> tuple[torch.Tensor, Regions]:
    """Eight pictures of 64 x 64 with a white square left of the middle, and its box."""
    pixels = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 24:40, 8:24] = 255
    boxes = torch.tensor([[8.0, 24.0, 24.0, 40.0], [60.0, 60.0, 64.0, 64.0]]) / 64
    labels = torch.zeros(8, 2, dtype=torch.long)
    return pixels, Regions(boxes.expand(8, 2, 4), labels, labels)


def test_without_settings_nothing_changes():
    pixels, regions = square()
    assert augmented(pixels, regions, NONE) == (pixels, regions)


def test_boxes_follow_a_zoom_and_those_cut_away_are_forgotten():
    torch.manual_seed(0)
    pixels, regions = square()
    zoomed, found = augmented(pixels, regions, Augmentation(0.3, 0.0, 0.0))
    assert found is not None
    seen = set()
    for picture, box in zip(zoomed, found.boxes[:, 0], strict=True):
        rows, columns = (picture[0] > 127).nonzero(as_tuple=True)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (box * 64).tolist() == pytest.approx([float(e) for e in edges], abs=1)
        seen.add(round(float(box[2] - box[0]), 4))
    assert len(seen) == 8  # numbers of its own for each picture
    assert all(16 / 64 <= width <= 16 / 64 / 0.7 + 1e-4 for width in seen)
    kept = (found.boxes[:, 1, 0] + found.boxes[:, 1, 2]) / 2 <= 1
    kept &= (found.boxes[:, 1, 1] + found.boxes[:, 1, 3]) / 2 <= 1
    assert 0 < kept.sum() < 8
    assert ((found.categories[:, 1] != NO_LABEL) == kept).all()
    assert (found.attributes[:, 0] != NO_LABEL).all()


def test_colours_keep_their_names():
    torch.manual_seed(0)
    names = torch.tensor([[200, 30, 30], [30, 160, 40], [40, 50, 190], [220, 210, 40]])
    pixels = names[:, :, None, None].expand(4, 3, 8, 8).to(torch.uint8)
    for _ in range(20):
        changed, _ = augmented(pixels, None, Augmentation(0.0, 0.2, 0.0))
        means = changed.mean((2, 3))
        assert 0 <= changed.min() <= changed.max() <= 255
        assert (means - names).abs().max() < 0.45 * 255
        assert torch.equal(means[:3].argmax(1), torch.arange(3))
        assert (means[3, 0] - means[3, 1]).abs() < 20  # yellow stays between red and green
        assert means[3, 2] < means[3, 1] / 2


def test_a_blur_keeps_the_light_and_differs_between_pictures():
    torch.manual_seed(0)
    pixels = torch.zeros(6, 3, 16, 16)
    pixels[:, :, 8, 8] = 100
    blurred, _ = augmented(pixels, None, Augmentation(0.0, 0.0, 1.5))
    torch.testing.assert_close(blurred.sum((2, 3)), pixels.sum((2, 3)), rtol=1e-4, atol=0)
    peaks = blurred[:, 0, 8, 8]
    assert len(set(peaks.tolist())) == 6
    assert 4 < peaks.min() < peaks.max() <= 100
    flat = torch.full((2, 3, 16, 16), 70.0)
    torch.testing.assert_close(augmented(flat, None, Augmentation(0.0, 0.0, 1.5))[0], flat)
