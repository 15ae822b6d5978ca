"""Where the next thing is, from the boxes alone."""

from __future__ import annotations

import pytest
import torch

from training.contrastive.neighbours import (
    ALONE,
    FURTHER_DOWN,
    FURTHER_UP,
    LEFT,
    RIGHT,
    UNIT,
    neighbours,
)
from training.contrastive.regions import NO_LABEL, Regions

#: Two trees in a row, and where a dog stands.
TREES = [[0.1, 0.3, 0.3, 0.7], [0.4, 0.3, 0.6, 0.7]]
DOGS = {
    "right of the row": ([0.7, 0.4, 0.9, 0.6], RIGHT, LEFT),
    "in front of one tree": ([0.45, 0.6, 0.65, 0.9], FURTHER_DOWN, FURTHER_UP),
    "behind the row": ([0.3, 0.2, 0.5, 0.6], FURTHER_UP, FURTHER_DOWN),
}


@pytest.mark.parametrize("where", DOGS)
def test_a_row_of_things_counts_as_one(where: str) -> None:
    dog, of_tree, of_dog = DOGS[where]
    boxes = torch.tensor([[*TREES, dog, [0.0] * 4]])
    categories = torch.tensor([[0, 0, 1, NO_LABEL]])
    found = neighbours(boxes, categories, NO_LABEL).directions
    assert found.tolist() == [[of_tree, of_tree, of_dog, NO_LABEL]]


def test_the_nearest_thing_of_another_category_is_meant() -> None:
    boxes = torch.tensor([[[0.4, 0.3, 0.5, 0.4], [0.0, 0.3, 0.3, 0.4], [0.8, 0.3, 1.0, 0.4]]])
    found = neighbours(boxes, torch.tensor([[0, 1, 2]]), NO_LABEL).directions
    assert found.tolist() == [[LEFT, RIGHT, LEFT]]


def test_a_thing_without_another_one_is_alone() -> None:
    boxes = torch.tensor([TREES, TREES])
    categories = torch.tensor([[0, 0], [0, NO_LABEL]])
    found = neighbours(boxes, categories, NO_LABEL).directions
    assert found.tolist() == [[ALONE, ALONE], [ALONE, NO_LABEL]]


def test_the_offset_is_from_middle_to_middle_and_from_lower_edge_to_lower_edge() -> None:
    boxes = torch.tensor([[*TREES, [0.7, 0.4, 0.9, 0.6], [0.0] * 4]])
    found = neighbours(boxes, torch.tensor([[0, 0, 1, NO_LABEL]]), NO_LABEL).offsets * UNIT
    of_trees = torch.tensor([0.8 - 0.35, 0.6 - 0.7])
    expected = torch.stack([of_trees, of_trees, -of_trees, torch.zeros(2)])
    assert torch.allclose(found[0], expected)
    alone = neighbours(boxes[:, :2], torch.tensor([[0, 0]]), NO_LABEL)
    assert not alone.offsets.any()


def test_a_mirrored_picture_has_its_neighbours_on_the_other_side() -> None:
    boxes = torch.tensor([[TREES[0], [0.7, 0.4, 0.9, 0.6]]])
    regions = Regions(boxes, torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    other = regions.mirrored()
    assert torch.allclose(other.boxes[0, 0], torch.tensor([0.7, 0.3, 0.9, 0.7]))
    assert neighbours(other.boxes, other.categories, NO_LABEL).directions.tolist() == [
        [LEFT, RIGHT]
    ]
