"""The LightningModule that trains CLIP: contrastive loss, caption loss and region loss.

The contrastive loss is CLIP's (arXiv 2103.00020, figure 3); the caption loss, as in CoCa
(arXiv 2205.01917), runs a small ClipCap on the image feature; the region loss names what is in a
box from the patches under it (see `training.contrastive.regions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import IGNORED, ClipCap
from model.network.encoder import pooled_and_patches
from training.captioner.optimization import adamw
from training.captioner.pair_prior import PairPrior
from training.captioner.tuning import CLIP, tunable
from training.config import Clip
from training.contrastive.regions import NO_LABEL, RegionHead, Regions
from training.contrastive.repainting import repainted
from training.contrastive.retrieval import recall_at
from training.encoding.pixel_cache import normalised

#: Pixels uint8 [B, 3, S, S], token ids [B, C, L], and boxes where the data set has them.
ContrastiveBatch = tuple[Tensor, Tensor, Regions | None]


class ContrastiveModule(pl.LightningModule):
    """CLIP's two towers under the contrastive loss, with ClipCap on the image feature.

    Args:
        clip: The model to train.
        settings: See `training.config.Clip`.
        preprocessing: Normalisation of the pixels.
        end_token_id: Token that ends and pads the texts.
        regions: Layers that name the boxes; None trains without the region loss.
        attribute_tokens: Tokens that name an attribute in a caption.
        prior: Prior on pairs of words, for the caption loss.
    """

    def __init__(
        self,
        clip: CLIPModel,
        settings: Clip,
        preprocessing: Preprocessing,
        end_token_id: int,
        regions: RegionHead | None = None,
        attribute_tokens: Sequence[int] = (),
        prior: PairPrior | None = None,
    ) -> None:
        super().__init__()
        self.clip = tunable(clip, settings.tuning, settings.lora, CLIP)
        self.settings = settings
        self.end_token_id = end_token_id
        self.size = preprocessing.size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.captioner: ClipCap | None = None
        if settings.caption_weight > 0:
            self.captioner = _captioner_for(clip, settings, preprocessing, end_token_id)
        self.regions = regions
        self.attribute_tokens: Tensor
        self.register_buffer("attribute_tokens", torch.tensor(attribute_tokens).long(), False)
        self.prior = prior
        #: Of the validation batches so far: image features [B, D], text features [M, D], and the
        #: number of captions of each image [B].
        self.validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def normalised(self, pixels: Tensor) -> Tensor:
        """Input of the image tower, float [B, 3, S, S], from pixels [B, 3, S, S] in 0..255."""
        return normalised(pixels, self.mean, self.std)

    def pooled_and_patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] and patches [B, P, width] of normalised pixels [B, 3, S, S]."""
        return pooled_and_patches(self.clip, pixels)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Features [B, D] of token ids [B, L] that include start and end tokens."""
        tokens = tokens[:, : int((tokens != self.end_token_id).sum(1).max()) + 1]
        pooled = self.clip.text_model(input_ids=tokens).pooler_output
        return self.clip.text_projection(pooled)

    def training_step(self, batch: ContrastiveBatch, index: int) -> Tensor:
        """Sum of the three losses; the contrastive and the caption loss draw a caption each.

        In a data set in which dogs are never green, an encoder learns that a green thing is not a
        dog. To prevent that, the things of a share of the pictures are recoloured
        (`clip.recolour`). Their true attributes are then unknown, so no loss reads them. Others are
        mirrored (`clip.mirror`), and no loss reads the captions of these.
        """
        pixels, texts, regions = batch
        pixels, regions = self._shifted(pixels, regions)
        order, count = torch.randperm(len(pixels)), len(pixels)
        flipped = order < int(self.settings.mirror * count)
        if flipped.any():
            pixels = pixels.clone()
            pixels[flipped] = pixels[flipped].flip(-1)
            if regions is not None:
                mirrored = regions.mirrored().boxes
                kept = regions.boxes.where(~flipped[:, None, None], mirrored)
                regions = regions._replace(boxes=kept)
        changed = torch.zeros(len(pixels), dtype=torch.bool)
        if regions is not None and self.settings.recolour > 0:
            changed = order < int(self.settings.recolour * count)
            pixels = pixels.float()
            boxes = Regions(*(part[changed] for part in regions))
            pixels[changed] = repainted(pixels[changed] / 255, boxes) * 255
        features, patches = self.pooled_and_patches(self.normalised(pixels))
        read = ~changed & ~flipped
        loss = self._contrastive(features[read], _random_caption(texts[read]))
        self.log("contrastive", loss, prog_bar=True)
        if self.captioner is not None:
            own = ~flipped
            caption = self._caption(
                self.captioner, features[own], _random_caption(texts[own]), changed[own]
            )
            self.log("caption", caption, prog_bar=True)
            loss = loss + self.settings.caption_weight * caption
        if self.regions is not None and regions is not None:
            known = regions.attributes.masked_fill(changed[:, None], NO_LABEL)
            region, _ = self.regions.loss(patches, features, regions._replace(attributes=known))
            self.log("region", region, prog_bar=True)
            loss = loss + self.settings.region_weight * region
        return loss

    def _contrastive(self, features: Tensor, texts: Tensor) -> Tensor:
        """Mean of the cross-entropies of image to text and of text to image, in the batch."""
        similarity = (
            self.clip.logit_scale.exp().clamp(max=100)
            * F.normalize(features.float(), dim=-1)
            @ F.normalize(self.text_features(texts).float(), dim=-1).T
        )
        own = torch.arange(len(texts), device=texts.device)
        return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2

    def _caption(
        self, captioner: ClipCap, features: Tensor, texts: Tensor, changed: Tensor
    ) -> Tensor:
        """Mean cross-entropy per token of the texts, up to their first end token.

        Attributes in the texts of changed pictures are left out of input and loss.
        """
        texts = texts[:, 1:]  # without the start token
        ends = (texts == self.end_token_id).cumsum(1)
        labels = texts.masked_fill(ends > 1, IGNORED)
        labels = labels[:, : int((labels != IGNORED).sum(1).max())]
        untrue = torch.isin(labels, self.attribute_tokens) & changed[:, None]
        labels = labels.masked_fill(untrue, IGNORED)
        return captioner(features, labels, self.settings.captioner.word_dropout, self.prior)

    def validation_step(self, batch: ContrastiveBatch, index: int) -> None:
        """Collect features, because retrieval needs the whole split, and log region accuracy."""
        pixels, texts, regions = batch
        different = first_of_its_kind(texts)
        text = self.text_features(texts[different])
        features, patches = self.pooled_and_patches(self.normalised(pixels))
        self.validated.append((features.float(), text.float(), different.sum(1)))
        if self.regions is not None and regions is not None:
            _, right = self.regions.loss(patches, features, regions)
            figures = {f"region_{name}": share for name, share in right.items()}
            self.log_dict(figures, batch_size=len(pixels), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log recall of retrieval among the pictures and captions of the split."""
        features, text, counts = (
            torch.cat(part).cpu() for part in zip(*self.validated, strict=True)
        )
        self.validated.clear()
        images, texts = F.normalize(features, dim=-1), F.normalize(text, dim=-1)
        owner = torch.arange(len(images)).repeat_interleave(counts)
        figures = recall_at(images, texts, owner, (1, 5))
        self.log_dict(figures, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up, then cosine to zero."""
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.settings, steps, "cosine")

    def _shifted(self, pixels: Tensor, regions: Regions | None) -> tuple[Tensor, Regions | None]:
        """The batch and its boxes moved by one random offset; edges are repeated."""
        reach = self.settings.shift
        if reach == 0:
            return pixels, regions
        padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate")
        top, left = torch.randint(2 * reach + 1, (2,)).tolist()
        moved = padded[:, :, top : top + self.size, left : left + self.size]
        if regions is not None:
            across, down = (reach - left) / self.size, (reach - top) / self.size
            offset = regions.boxes.new_tensor([across, down, across, down])
            regions = regions._replace(boxes=regions.boxes + offset)
        return moved, regions


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


def _random_caption(texts: Tensor) -> Tensor:
    """A random caption [B, L] of the captions [B, C, L] of each picture."""
    rows = torch.arange(len(texts))
    return texts[rows, torch.randint(texts.shape[1], (len(texts),))]


def _captioner_for(
    clip: CLIPModel, settings: Clip, preprocessing: Preprocessing, end_token_id: int
) -> ClipCap:
    """A small captioner from scratch that reads CLIP's features and writes CLIP's tokens."""
    sizes = settings.captioner
    text: Any = clip.config.text_config
    config = CaptionerConfig(
        clip=None,
        gpt2={
            "vocab_size": text.vocab_size,
            "n_positions": sizes.prefix_length + text.max_position_embeddings,
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
        feature_width=clip.visual_projection.out_features,
        normalize_feature=False,
        end_token_id=end_token_id,
    )
    return ClipCap(config)
