"""The out-of-distribution score: how far an image's feature is from those of the training images.

The training features fall into groups, which k-means finds. The score is the Mahalanobis distance
to the nearest group's centre, with one covariance for all groups: Lee et al., "A Simple Unified
Framework for Detecting Out-of-Distribution Samples" (arXiv 1807.03888), with clusters in the place
of classes (Sehwag et al., "SSD", arXiv 2103.12051, section 3). The score of an image is compared
with those of validation images, so that a user reads a share and no distance. `training.ood` learns
both after the captioner, whose weights stay as they are.

A server runs it as it is, from a file of its own beside the exported network (`model.artifact`).

Axes: B batch, P image patches, D CLIP width, G groups, N validation images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OodScore(nn.Module):
    """Distance of features to those of the training images.

    Costs a product of D x D and G distances an image.

    Args:
        width: D.
        groups: G.
        validation: N.
    """

    def __init__(self, width: int, groups: int, validation: int) -> None:
        super().__init__()
        #: Mean of the training features, [D].
        self.mean = nn.Buffer(torch.zeros(width))
        #: Makes the covariance within the groups the unit matrix, [D, D].
        self.whitening = nn.Buffer(torch.eye(width))
        #: Whitened centres of the groups, [G, D].
        self.centres = nn.Buffer(torch.zeros(groups, width))
        #: Scores of the validation images, ascending, [N].
        self.validation = nn.Buffer(torch.zeros(validation))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and what share of the validation images is at least as unusual.

        Args:
            features: float32 [B, D], or [B, P, D], whose mean over the patches is taken.

        Returns:
            Scores, float32 [B]: distance divided by the root of D, so about 1 for a usual image.
            p-values, float32 [B], above 0 and at most 1: (k + 1) / (N + 1), where k validation
            images have this score or a higher one. The image itself is counted with them, as in
            conformal prediction: of usual images no more than a share p has a p-value up to p.
        """
        scores = self.distance(features)
        count = self.validation.shape[0]
        below = torch.searchsorted(self.validation, scores)  # validation images with a lower score
        p_values = (count - below + 1).to(torch.float32) / float(count + 1)
        return scores, p_values

    def distance(self, features: Tensor) -> Tensor:
        """The scores alone, float32 [B]; the arguments are those of `forward`."""
        features = pooled(features)
        whitened = (features - self.mean) @ self.whitening
        squares = (whitened.unsqueeze(1) - self.centres).square().mean(-1)  # [B, G]
        return squares.amin(-1).sqrt()


def pooled(features: Tensor) -> Tensor:
    """Features float32 [B, D], of [B, D] or [B, P, D]: the mean of an image's patches."""
    features = features.to(torch.float32)
    return features.mean(1) if features.dim() == 3 else features
