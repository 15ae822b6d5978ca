"""The contrastive loss of images and captions, over the batches of all ranks.

Axes: B pictures of this rank, N pictures of all ranks, D width of the feature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.contrastive.ranks import of_all_ranks, rank


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, hardness: float = 0.0) -> Tensor:
    """Mean of the cross-entropies of image to text and of text to image (arXiv 2103.00020).

    Each rank compares its own images with the captions of all, and its own captions with the images
    of all. The average of the ranks' losses is the loss of the whole batch, and so are the
    gradients. A rank computes 2 * B * N similarities and not N * N.

    Args:
        images: Normalised, float32 [B, D].
        texts: Of the caption of each, likewise.
        scale: Factor of the similarities, [].
        hardness: Weight of the negatives that look most like the positive (see `harder`).

    Returns:
        The loss, float32 [].
    """
    own = torch.arange(len(images), device=images.device) + rank() * len(images)
    to_text = scale * images @ of_all_ranks(texts).T  # [B, N]
    to_image = scale * texts @ of_all_ranks(images).T
    entropies = [F.cross_entropy(harder(each, own, hardness), own) for each in (to_text, to_image)]
    return (entropies[0] + entropies[1]) / 2


def harder(similarity: Tensor, own: Tensor, hardness: float) -> Tensor:
    """Logits in which hard negatives count more, as in HN-NCE (arXiv 2301.02280, section 3.3).

    The term of a negative in the denominator is multiplied by a weight proportional to
    exp(hardness * similarity). The weights of a row have the mean 1, and they are constants for
    the gradient. Robinson et al. (arXiv 2010.04592) proposed such weights for images alone.

    Args:
        similarity: Scaled similarities [B, N].
        own: Column of each row's positive, int64 [B].
        hardness: 0 leaves all negatives at the weight 1.

    Returns:
        Logits [B, N].
    """
    if hardness == 0:
        return similarity
    column = own[:, None]
    negatives = (hardness * similarity.detach()).scatter(1, column, -math.inf)
    weights = negatives.log_softmax(1) + math.log(max(similarity.shape[1] - 1, 1))
    return similarity + weights.scatter(1, column, 0.0)
