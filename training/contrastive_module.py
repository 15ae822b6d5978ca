"""The LightningModule that trains CLIP: contrastive loss, and a caption loss beside it.

The contrastive loss is CLIP's (arXiv 2103.00020, figure 3); the caption loss, as in CoCa
(arXiv 2205.01917), runs a small ClipCap on the image feature.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from model.captioner import IGNORED, ClipCap
from model.config import CaptionerConfig, MapperConfig
from model.image import Preprocessing
from training.config import Clip
from training.optimization import adamw
from training.retrieval import recall_at


class ContrastiveModule(pl.LightningModule):
    """CLIP's two towers under the contrastive loss, and ClipCap on the image feature.

    Args:
        clip: The model to train.
        settings: See `training.config.Clip`.
        preprocessing: Normalisation of the pixels.
        end_token_id: Ends (and pads) the texts.
        steps: Optimiser steps in all, for the schedule.
    """

    def __init__(
        self,
        clip: CLIPModel,
        settings: Clip,
        preprocessing: Preprocessing,
        end_token_id: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.settings = settings
        self.end_token_id = end_token_id
        self.steps = steps
        self.size = preprocessing.size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.captioner: ClipCap | None = None
        if settings.caption_weight > 0:
            self.captioner = _captioner_for(clip, settings, preprocessing, end_token_id)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def image_features(self, pixels: Tensor) -> Tensor:
        """Features [B, D] of uint8 pixels [B, 3, S, S]."""
        normalised = (pixels.float() / 255 - self.mean) / self.std
        pooled = self.clip.vision_model(pixel_values=normalised).pooler_output
        return self.clip.visual_projection(pooled)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Features [B, D] of token ids [B, L], start and end tokens included."""
        tokens = tokens[:, : int((tokens != self.end_token_id).sum(1).max()) + 1]
        pooled = self.clip.text_model(input_ids=tokens).pooler_output
        return self.clip.text_projection(pooled)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Contrastive loss on one caption per picture, caption loss on another."""
        pixels, texts = batch
        count, captions, _ = texts.shape
        rows = torch.arange(count)
        features = self.image_features(self._shifted(pixels))
        chosen = texts[rows, torch.randint(captions, (count,))]
        similarity = (
            self.clip.logit_scale.exp().clamp(max=100)
            * F.normalize(features.float(), dim=-1)
            @ F.normalize(self.text_features(chosen).float(), dim=-1).T
        )
        contrastive = (F.cross_entropy(similarity, rows) + F.cross_entropy(similarity.T, rows)) / 2
        self.log("contrastive", contrastive, prog_bar=True)
        if self.captioner is None:
            return contrastive
        other = texts[rows, torch.randint(captions, (count,))][:, 1:]  # without the start token
        ends = (other == self.end_token_id).cumsum(1)
        labels = other.masked_fill(ends > 1, IGNORED)  # the first end token is learned
        labels = labels[:, : int((labels != IGNORED).sum(1).max())]
        caption = self.captioner(features, labels)
        self.log("caption", caption, prog_bar=True)
        return contrastive + self.settings.caption_weight * caption

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Collect features; retrieval needs the whole split."""
        pixels, texts = batch
        text = self.text_features(texts.flatten(0, 1))
        self.seen.append((self.image_features(pixels).float(), text.float()))

    def on_validation_epoch_end(self) -> None:
        """Log recall among the split's own pictures and captions."""
        images, texts = (
            F.normalize(torch.cat(part), dim=-1) for part in zip(*self.seen, strict=True)
        )
        self.seen.clear()
        owner = torch.arange(len(images)).repeat_interleave(len(texts) // len(images))
        figures = recall_at(images.cpu(), texts.cpu(), owner, (1, 5))
        self.log_dict(figures, prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, linear warm-up, cosine to zero."""
        return adamw(self, self.settings, self.steps, "cosine")

    def _shifted(self, pixels: Tensor) -> Tensor:
        """The whole batch moved by one random offset, edges repeated."""
        reach = self.settings.shift
        if reach == 0:
            return pixels
        padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate")
        top, left = torch.randint(2 * reach + 1, (2,)).tolist()
        return padded[:, :, top : top + self.size, left : left + self.size]


def _captioner_for(
    clip: CLIPModel, settings: Clip, preprocessing: Preprocessing, end_token_id: int
) -> ClipCap:
    """A small captioner from scratch that reads CLIP's features and writes CLIP's tokens."""
    sizes = settings.captioner
    config = CaptionerConfig(
        clip=None,
        gpt2={
            "vocab_size": clip.config.text_config.vocab_size,
            "n_positions": sizes.prefix_length + clip.config.text_config.max_position_embeddings,
            "n_embd": sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": end_token_id,
            "eos_token_id": end_token_id,
        },
        mapper=MapperConfig(kind="mlp", prefix_length=sizes.prefix_length),
        preprocessing=preprocessing,
        feature_width=clip.config.projection_dim,
        normalize_feature=False,
        end_token_id=end_token_id,
    )
    return ClipCap(config)
