"""Fits the out-of-distribution score to features.

Axes: N images, D width, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.ood import OodScore, pooled

#: Rounds of k-means; the centres hardly move after so many.
ROUNDS = 30
#: Fewest images of a group, on average: the centre of fewer is mostly chance.
IMAGES_OF_A_GROUP = 20
#: Least variance, as a share of the mean one. A dimension that never varied in training would
#: otherwise make any image infinitely far.
LEAST_VARIANCE = 1e-6


def fit(training: Tensor, validation: Tensor, groups: int, seed: int) -> OodScore:
    """A score whose p-values are calibrated on other images.

    Args:
        training: Features [N, D] or [N, P, D] of at least two images.
        validation: Features of at least one image, of the same shape but for N.
        groups: Most groups; there are fewer where there are few images.
        seed: Decides where k-means begins.
    """
    features = pooled(training).double()
    mean = features.mean(0)
    centred = features - mean
    whitening = whitening_of(centred)
    count = max(1, min(groups, len(features) // IMAGES_OF_A_GROUP))
    # In whitened coordinates no dimension decides alone which group an image belongs to.
    centres, owners = k_means(centred @ whitening, count, seed)
    within = centred @ whitening - centres[owners]
    again = whitening_of(within)
    score = OodScore(features.shape[1], count, len(validation))
    score.mean.copy_(mean)
    score.whitening.copy_(whitening @ again)
    score.centres.copy_(centres @ again)
    score.validation.copy_(score.distance(validation).sort().values)
    return score.eval()


def whitening_of(centred: Tensor) -> Tensor:
    """A matrix [D, D] that makes the covariance of centred features [N, D] the unit matrix.

    The covariance is shrunk towards a multiple of the unit matrix by as much as expects the least
    error: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices" (2004), section 3.
    """
    count, width = centred.shape
    covariance = centred.T @ centred / count
    scale = covariance.diagonal().mean()
    target = scale * torch.eye(width, dtype=centred.dtype)
    squares = centred.square()
    error = ((squares.T @ squares / count - covariance.square()).sum() / count).clamp(min=0)
    spread = (covariance - target).square().sum()
    share = min(1.0, float(error / spread)) if spread > 0 else 1.0
    shrunk = (1 - share) * covariance + share * target
    values, vectors = torch.linalg.eigh(shrunk)
    least = float(scale) * LEAST_VARIANCE or 1.0  # all images alike: any scale would do
    return vectors * values.clamp(min=least).rsqrt()


def k_means(points: Tensor, groups: int, seed: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from points at random.

    Args:
        points: [N, D].
        groups: At most N.
        seed: Decides which points are the first centres.

    Returns:
        Centres [G, D], and the group of each point, int64 [N].
    """
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:groups]]
    owners = torch.cdist(points, centres).argmin(1)
    for _ in range(ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        counts = torch.bincount(owners, minlength=groups).unsqueeze(1)
        # A group that has lost all its points stays where it was.
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        owners = torch.cdist(points, centres).argmin(1)
    return centres, owners
