"""Retrieval between images and captions, as CLIP (arXiv 2103.00020) and COCO report it."""

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
        `image_to_text_R@k` (any of an image's captions counts) and `text_to_image_R@k`, 0 to 1.
        Costs N * M similarities in memory.
    """
    similarity = images @ texts.T  # [N, M]
    right = owner[None, :] == torch.arange(len(images))[:, None]  # [N, M]
    deepest = max(ranks)
    found_text = right.gather(1, similarity.topk(min(deepest, len(texts)), dim=1).indices)
    best_image = similarity.T.topk(min(deepest, len(images)), dim=1).indices  # [M, k]
    found_image = best_image == owner[:, None]
    figures = {}
    for k in ranks:
        figures[f"image_to_text_R@{k}"] = found_text[:, :k].any(1).float().mean().item()
        figures[f"text_to_image_R@{k}"] = found_image[:, :k].any(1).float().mean().item()
    return figures
