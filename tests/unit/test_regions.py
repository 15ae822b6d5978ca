"""Boxes of a data set: where they lie in the encoder's square, and what is learned from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.image import Preprocessing
from model.refusal import Refusal
from training.dataset import CaptionDataset
from training.regions import NOTHING, RegionHead, RegionIndex, Regions

SQUARE = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def data_set(root: Path, annotations: list[dict[str, Any]]) -> CaptionDataset:
    """Two pictures, 200 x 100 and 50 x 100, with these boxes."""
    images = [{"id": 7, "width": 200, "height": 100}, {"id": 8, "width": 50, "height": 100}]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(coco))
    return CaptionDataset(root, {}, {}, {"train": [7, 8]})


def test_boxes_are_where_the_encoder_sees_them(tmp_path: Path):
    data = data_set(
        tmp_path,
        [
            {"image_id": 7, "category_id": 3, "bbox": [50, 0, 100, 100], "attributes": ["red"]},
            {"image_id": 7, "category_id": 18, "bbox": [0, 25, 100, 50]},
            {"image_id": 8, "category_id": 18, "bbox": [0, 25, 25, 50], "attributes": ["black"]},
        ],
    )
    index = RegionIndex(data)
    assert (index.categories, index.attributes) == (2, 2)
    regions = index.split([8, 7], SQUARE)
    assert regions.boxes[0, 0].tolist() == [0, 0, 0.5, 1]
    assert regions.boxes[1, 0].tolist() == [0, 0, 1, 1]
    assert regions.boxes[1, 1].tolist() == [-0.5, 0.25, 0.5, 0.75]  # half of it is cut away
    assert regions.categories.tolist() == [[0, NOTHING], [1, 0]]
    assert regions.attributes.tolist() == [[0, NOTHING], [1, NOTHING]]
    whole = Preprocessing(size=32, mean=SQUARE.mean, std=SQUARE.std, crop=False)
    assert index.split([7], whole).boxes[0, 0].tolist() == [0.25, 0, 0.75, 1]


def test_a_box_reads_the_patches_under_it_by_their_share():
    head = RegionHead(width=3, grid=4, categories=3, attributes=0)
    head.norm = torch.nn.Identity()
    head.category.weight.data = torch.eye(3)
    head.category.bias.data.zero_()
    patches = torch.randn(1, 16, 3)
    # Half of the patch in row 1, column 2 and all of the one beside it; and one whole column.
    boxes = torch.tensor([[[0.625, 0.25, 1.0, 0.5], [0.0, -0.3, 0.25, 1.0]]])
    named, _ = head(patches, boxes)
    grid = patches.view(4, 4, 3)
    torch.testing.assert_close(named[0, 0], (grid[1, 2] * 0.5 + grid[1, 3]) / 1.5)
    torch.testing.assert_close(named[0, 1], grid[:, 0].mean(0))


def test_places_without_a_box_teach_nothing():
    torch.manual_seed(0)
    head = RegionHead(width=8, grid=2, categories=4, attributes=3)
    patches = torch.randn(2, 4, 8)
    boxes = torch.rand(2, 3, 4).sort(-1).values[..., [0, 1, 2, 3]]
    labels = torch.tensor([[1, 2, NOTHING], [NOTHING] * 3])
    loss, right = head.loss(patches, Regions(boxes, labels, labels))
    first, _ = head.loss(patches[:1], Regions(boxes[:1, :2], labels[:1, :2], labels[:1, :2]))
    torch.testing.assert_close(loss, first)
    assert right.shape == (2,)
    none = torch.full((2, 3), NOTHING)
    loss, right = head.loss(patches, Regions(boxes, none, none))
    assert loss.item() == 0
    assert right.tolist() == [0, 0]


def test_things_are_told_apart_by_where_they_are():
    """A head on fixed patches learns which half is which: the gradient reaches the right ones."""
    torch.manual_seed(0)
    head = RegionHead(width=4, grid=2, categories=2, attributes=0)
    patches = torch.randn(8, 4, 4)
    patches[:, [0, 2], 0], patches[:, [1, 3], 0] = 3, -3
    halves = torch.tensor([[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]]).expand(8, 2, 4)
    labels = torch.tensor([[0, 1]]).expand(8, 2)
    regions = Regions(halves, labels, torch.full_like(labels, NOTHING))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss, right = head.loss(patches, regions)
        loss.backward()
        optimizer.step()
    assert right[0] == 1


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 7, "category_id": 99, "bbox": [0, 0, 1, 1]}, "unknown 99"),
        ({"image_id": 7, "category_id": 3}, "bbox"),
        (
            {"id": 5, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "attributes": "ab"},
            "instance 5 has 2 attributes",
        ),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, annotation: dict[str, Any], message: str):
    with pytest.raises(Refusal, match=message):
        RegionIndex(data_set(tmp_path, [annotation]))


def test_a_data_set_without_boxes_says_what_to_do(tmp_path: Path):
    with pytest.raises(Refusal, match="region_weight=0"):
        RegionIndex(CaptionDataset(tmp_path, {}, {}, {"train": [7]}))
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(Refusal, match="is not JSON"):
        RegionIndex(CaptionDataset(tmp_path, {}, {}, {"train": [7]}))
