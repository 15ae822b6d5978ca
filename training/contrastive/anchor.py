"""A frozen teacher whose features anchor those of a CLIP that is fine-tuned.

Fine-tuning on little data changes features of pictures and words that the data does not show. The
anchor is the base as it was: the loss grows with the distance between its features and the tuned
ones, for the pictures and captions of the batch. It is feature distillation (arXiv 1412.6550) from
the model's own past, as "Learning without Forgetting" (arXiv 1606.09282) does with its outputs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel

from model.network.encoder import pooled_and_patches


class Anchor(nn.Module):
    """The base of a fine-tuning, frozen and in evaluation mode.

    Args:
        clip: The base before its tuning; it is copied.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = copy.deepcopy(clip).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Anchor:
        """Stay in evaluation mode, whatever the module around it does."""
        return super().train(False)

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Features [B, D] of normalised pixels [B, 3, S, S]."""
        return pooled_and_patches(self.clip, pixels)[0]

    @torch.no_grad()
    def texts(self, tokens: Tensor) -> Tensor:
        """Features [B, D] of token ids [B, L]."""
        return self.clip.text_projection(self.clip.text_model(input_ids=tokens).pooler_output)


def drift(features: Tensor, before: Tensor) -> Tensor:
    """Mean distance of features to those of the anchor: 1 - cosine, from 0 to 2.

    Args:
        features: Of the tuned CLIP, [B, D].
        before: Of the anchor, [B, D].
    """
    return 1 - F.cosine_similarity(features.float(), before.float(), dim=-1).mean()
