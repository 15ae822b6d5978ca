"""Boxes of a data set: where they lie in the encoder's square, and what is learned from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.image.preprocessing import Preprocessing
from model.refusal import Refusal
from training.contrastive.neighbours import Neighbours
from training.contrastive.regions import NO_LABEL, RegionHead, RegionIndex, Regions
from training.data.dataset import CaptionDataset

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
    assert (index.categories, index.attributes) == (2, ["black", "red"])
    regions = index.split([8, 7], SQUARE)
    assert regions.boxes[0, 0].tolist() == [0, 0, 0.5, 1]
    assert regions.boxes[1, 0].tolist() == [0, 0, 1, 1]
    assert regions.boxes[1, 1].tolist() == [-0.5, 0.25, 0.5, 0.75]  # half of it is cut away
    assert regions.categories.tolist() == [[0, NO_LABEL], [1, 0]]
    assert regions.attributes.tolist() == [[0, NO_LABEL], [1, NO_LABEL]]
    whole = Preprocessing(size=32, mean=SQUARE.mean, std=SQUARE.std, crop=False)
    assert index.split([7], whole).boxes[0, 0].tolist() == [0.25, 0, 0.75, 1]


def test_a_box_reads_the_patches_under_it_by_their_share():
    head = RegionHead(width=3, feature_width=5, grid=4, categories=3, attributes=0)
    head.norm = torch.nn.Identity()
    head.category.weight.data = torch.eye(3)
    head.category.bias.data.zero_()
    patches = torch.randn(1, 16, 3)
    # Half of the patch in row 1, column 2 and all of the one beside it; and one whole column.
    boxes = torch.tensor([[[0.625, 0.25, 1.0, 0.5], [0.0, -0.3, 0.25, 1.0]]])
    named, _, _ = head(patches, boxes)
    grid = patches.view(4, 4, 3)
    torch.testing.assert_close(named[0, 0], (grid[1, 2] * 0.5 + grid[1, 3]) / 1.5)
    torch.testing.assert_close(named[0, 1], grid[:, 0].mean(0))


def test_places_without_a_box_teach_nothing():
    torch.manual_seed(0)
    head = RegionHead(width=8, feature_width=6, grid=2, categories=4, attributes=3)
    patches, features = torch.randn(1, 4, 8), torch.randn(1, 6)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.3, 0.3, 0.9, 0.8], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, 2, NO_LABEL]])
    loss, right = head.loss(patches, features, Regions(boxes, labels, labels))
    first, _ = head.loss(patches, features, Regions(boxes[:, :2], labels[:, :2], labels[:, :2]))
    torch.testing.assert_close(loss, first)
    assert all(0 <= share <= 1 for share in right.values())
    none = torch.full((1, 3), NO_LABEL)
    _, right = head.loss(patches, features, Regions(boxes, none, none))
    assert {name for name, share in right.items() if share > 0} <= {"picture_none"}


def small_world() -> tuple[Tensor, Tensor, Regions]:
    """Patches, features and boxes of 32 pictures: a thing on the left, one or two on the right."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(3, (32, 2), generator=generator)
    colours = torch.randint(2, (32, 2), generator=generator)
    twice = torch.randint(2, (32,), generator=generator)
    code = torch.cat([F.one_hot(kinds, 3), F.one_hot(colours, 2)], -1).float()  # [32, 2, 5]
    patches = code[:, [0, 1, 0, 1]]  # the left and the right column of a 2 x 2 grid
    features = torch.cat([code.flatten(1), twice[:, None].float()], 1)
    left, right = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
    boxes = torch.tensor([left, right, right]).expand(32, 3, 4)
    gone = twice == 0
    categories, attributes = kinds[:, [0, 1, 1]].clone(), colours[:, [0, 1, 1]].clone()
    categories[gone, 2], attributes[gone, 2] = NO_LABEL, NO_LABEL
    return patches, features, Regions(boxes, categories, attributes)


def test_everything_that_boxes_say_can_be_learned():
    torch.manual_seed(0)
    patches, features, regions = small_world()
    different = regions.categories[:, 0] != regions.categories[:, 1]
    patches, features = patches[different], features[different]
    regions = Regions(*(part[different] for part in regions))
    head = RegionHead(width=5, feature_width=11, grid=2, categories=3, attributes=2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss, right = head.loss(patches, features, regions)
        loss.backward()
        optimizer.step()
    assert right["category"] == right["attribute"] == 1
    assert min(share for name, share in right.items() if name.startswith("picture")) > 0.9


def test_single_patches_name_the_boxes_that_have_most_of_them():
    torch.manual_seed(0)
    head = RegionHead(width=3, feature_width=5, grid=2, categories=3, attributes=2)
    head.norm = torch.nn.Identity()
    patches = torch.randn(1, 4, 3)
    # All of the left column; 0.8 of the upper right patch, and too little of the lower right one.
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.6, 0.0, 1.0, 0.7]]])
    labels, unnamed = torch.tensor([[1, 2]]), torch.tensor([[1, NO_LABEL]])
    log_names = head.category(patches).log_softmax(-1)[0]
    log_attributes = head.attribute(patches).log_softmax(-1)[0]
    log_sides = head.direction(patches).log_softmax(-1)[0]
    names = -(log_names[0, 1] + log_names[2, 1] + 0.8 * log_names[1, 2]) / 2.8
    attributes = -(log_attributes[0, 1] + log_attributes[2, 1]) / 2
    sides = -(log_sides[0, 4] + log_sides[2, 4] + 0.8 * log_sides[1, 3]) / 2.8
    place = head.offset(patches)[0]
    right, down = torch.tensor([2.0, 3.0]), torch.tensor([-2.0, -3.0])
    far = [F.smooth_l1_loss(place[patch], to, reduction="sum")
           for patch, to in ((0, right), (2, right), (1, down))]  # fmt: skip
    around = Neighbours(torch.tensor([[4, 3]]), torch.stack([right, down])[None])
    loss = head.of_patches(patches, Regions(boxes, labels, unnamed), around)
    offsets = (far[0] + far[1] + 0.8 * far[2]) / 2.8
    torch.testing.assert_close(loss, names + attributes + sides + offsets)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 7, "category_id": 99, "bbox": [0, 0, 1, 1]}, "unknown 99"),
        ({"image_id": 7, "category_id": 3}, "bbox"),
        ({"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}, "is in image 9, which"),
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
