"""Recall among images and captions, counted by hand."""

from __future__ import annotations

import pytest
import torch

from training.contrastive.retrieval import recall_at

OWNER = torch.tensor([0, 0, 1, 1, 2, 2])


def test_perfect_features_find_everything():
    images = torch.eye(3)
    figures = recall_at(images, images.repeat_interleave(2, 0), OWNER, (1, 5))
    assert figures == {
        "image_to_text_R@1": 1.0,
        "text_to_image_R@1": 1.0,
        "image_to_text_R@5": 1.0,
        "text_to_image_R@5": 1.0,
    }


def test_each_direction_is_counted_by_itself():
    images = torch.eye(3)
    # Likeness of each caption (row) to images 0, 1 and 2.
    texts = torch.tensor(
        [
            [0.9, 0.1, 0.0],  # of 0: finds it first
            [0.2, 0.8, 0.0],  # of 0: second
            [0.0, 0.1, 0.2],  # of 1: second
            [0.5, 0.1, 0.7],  # of 1: third
            [0.0, 0.3, 0.6],  # of 2: first
            [0.4, 0.2, 0.1],  # of 2: third
        ]
    )
    figures = recall_at(images, texts, OWNER, (1, 2, 3))
    assert figures["text_to_image_R@1"] == pytest.approx(2 / 6)
    assert figures["text_to_image_R@2"] == pytest.approx(4 / 6)
    assert figures["text_to_image_R@3"] == 1
    # Image 0 likes caption 0 best (its own), 1 likes caption 1, 2 likes caption 3 (not theirs).
    assert figures["image_to_text_R@1"] == pytest.approx(1 / 3)
    # The next ones: image 1 likes caption 4 (not its own), image 2 caption 4 (its own).
    assert figures["image_to_text_R@2"] == pytest.approx(2 / 3)


def test_more_ranks_than_there_are_candidates_find_everything():
    images = torch.eye(2)
    figures = recall_at(images, -images, torch.tensor([0, 1]), (1, 5))
    assert figures["image_to_text_R@1"] == 0
    assert figures["image_to_text_R@5"] == figures["text_to_image_R@5"] == 1


def test_an_image_counts_once_however_many_captions_it_has():
    # Four captions find image 0; the only caption of image 1 finds image 0 too.
    texts = torch.tensor([[1.0, 0.0]] * 4 + [[0.6, 0.4]])
    figures = recall_at(torch.eye(2), texts, torch.tensor([0, 0, 0, 0, 1]), (1,))
    assert figures["text_to_image_R@1"] == pytest.approx(1 / 2)
    assert figures["image_to_text_R@1"] == 1


def test_images_may_have_different_numbers_of_captions():
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9]])
    figures = recall_at(torch.eye(2), texts, torch.tensor([0, 1, 1]), (1,))
    assert figures == {"image_to_text_R@1": 1.0, "text_to_image_R@1": 1.0}
