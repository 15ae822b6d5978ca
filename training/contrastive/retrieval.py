"""Retrieval between images and captions, as CLIP (arXiv 2103.00020) and COCO report it.

In COCO's test every image has five captions. Where the numbers differ, an image counts once in both
directions, however many captions it has.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recall_at(
    images: Tensor, texts: Tensor, owner: Tensor, ranks: tuple[int, ...]
) -> dict[str, float]:
    """Share of queries with a right answer among the first k.

    Args:
        images: [N, D] normalised image features.
        texts: [M, D] normalised text features.
        owner: [M] row of the image that each text describes.
        ranks: The k to report.

    Returns:
        `image_to_text_R@k`: share of the images with one of their captions among the first k.
        `text_to_image_R@k`: of each image, the share of its captions that find it among the first
        k; then the mean over the images that have a caption. Both are from 0 to 1. Costs N * M
        similarities in memory.
    """
    similarity = images @ texts.T  # [N, M]
    right = owner[None, :] == torch.arange(len(images))[:, None]  # [N, M]
    deepest = max(ranks)
    found_text = right.gather(1, similarity.topk(min(deepest, len(texts)), dim=1).indices)
    best_image = similarity.T.topk(min(deepest, len(images)), dim=1).indices  # [M, k]
    found_image = best_image == owner[:, None]
    # The captions of an image weigh 1 together.
    weights = 1 / torch.bincount(owner, minlength=len(images))[owner].double()
    figures = {}
    for k in ranks:
        figures[f"image_to_text_R@{k}"] = found_text[:, :k].any(1).float().mean().item()
        figures[f"text_to_image_R@{k}"] = (
            (found_image[:, :k].any(1) * weights).sum() / weights.sum()
        ).item()
    return figures


def first_of_its_kind(texts: Tensor) -> Tensor:
    """Which captions of a picture are not equal to one before them.

    Pictures with fewer captions than others repeat theirs (see `CaptionedPixels`). Counted again
    and again, they would fill the first ranks of a retrieval.

    Args:
        texts: Token ids [B, C, L] of the captions of each picture.

    Returns:
        bool [B, C].
    """
    equal = (texts[:, :, None] == texts[:, None]).all(-1)  # [B, C, C]
    return ~equal.tril(-1).any(2)
