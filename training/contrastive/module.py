"""The LightningModule that trains CLIP: contrastive, caption and region loss, and the anchor.

The contrastive loss is CLIP's (arXiv 2103.00020, figure 3); the caption loss, as in CoCa
(arXiv 2205.01917), runs a small ClipCap on the image feature; the region loss names what is in a
box from the patches under it (see `training.contrastive.regions`).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from model.image.preprocessing import Preprocessing
from model.network.captioner import IGNORED, ClipCap
from model.network.encoder import pooled_and_patches
from training.captioner.module import batch_seed
from training.captioner.objectives.pair_prior import PairPrior
from training.captioner.optimization import adamw
from training.captioner.tuning import CLIP, tunable
from training.config import Clip
from training.contrastive.anchor import Anchor, drift
from training.contrastive.augmentation import augmented
from training.contrastive.from_scratch import small_captioner
from training.contrastive.loss import contrastive_loss
from training.contrastive.ranks import mean_over_all, objects_of_all_ranks, rank, world_size
from training.contrastive.regions import NO_LABEL, RegionHead, Regions
from training.contrastive.repainting import repainted
from training.contrastive.retrieval import first_of_its_kind, recall_at
from training.encoding.pixel_cache import normalised

#: Pixels uint8 [B, 3, S, S], token ids [B, C, L], and boxes where the data set has them.
ContrastiveBatch = tuple[Tensor, Tensor, Regions | None]
#: In the place of a rank's number, for the seed of what all ranks draw alike.
ALL_RANKS = 2**31


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
        self.anchor = Anchor(clip) if settings.anchor_weight > 0 else None
        #: Draws what all ranks draw alike, each for the whole batch.
        self.draws = torch.Generator().manual_seed(settings.seed)
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
            self.captioner = small_captioner(clip, settings, preprocessing, end_token_id)
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
        pooled = self.clip.text_model(input_ids=self._trimmed(tokens)).pooler_output
        return self.clip.text_projection(pooled)

    def _trimmed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, L] without the padding that all of them have."""
        return tokens[:, : int((tokens != self.end_token_id).sum(1).max()) + 1]

    def on_train_batch_start(self, batch: ContrastiveBatch, index: int) -> None:
        """Seed the random numbers of a batch, so that a resumed run draws those it would have."""
        part = index % self.trainer.accumulate_grad_batches
        seed, step = self.settings.seed, self.global_step
        torch.manual_seed(batch_seed(seed, step, self.global_rank, part))
        self.draws.manual_seed(batch_seed(seed, step, ALL_RANKS, part))

    def training_step(self, batch: ContrastiveBatch, index: int) -> Tensor:
        """Sum of the losses; the contrastive and the caption loss draw a caption each.

        In a data set in which dogs are never green, an encoder learns that a green thing is not a
        dog. To prevent that, the things of a share of the pictures are recoloured
        (`clip.recolour`). Their true attributes are then unknown, so no loss reads them. A share is
        mirrored (`clip.mirror`), and no loss reads the captions of these.

        Random numbers are drawn on the CPU, so they are the same on every device.
        """
        pixels, texts, regions = batch
        pixels, regions = self._shifted(pixels, regions)
        pixels, regions = augmented(pixels, regions, self.settings.augmentation)
        order, count = torch.randperm(len(pixels)).to(pixels.device), len(pixels)
        flipped = order < int(self.settings.mirror * count)
        if flipped.any():
            pixels = pixels.clone()
            pixels[flipped] = pixels[flipped].flip(-1)
            if regions is not None:
                mirrored = regions.mirrored().boxes
                kept = regions.boxes.where(~flipped[:, None, None], mirrored)
                regions = regions._replace(boxes=kept)
        changed = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        if regions is not None and self.settings.recolour > 0:
            changed = order < int(self.settings.recolour * count)
            pixels = pixels.float()
            boxes = Regions(*(part[changed] for part in regions))
            pixels[changed] = repainted(pixels[changed] / 255, boxes) * 255
        normal = self.normalised(pixels)
        features, patches = self.pooled_and_patches(normal)
        read = ~changed & ~flipped
        loss = self._contrastive(features[read], texts[read], normal[read])
        if self.captioner is not None:
            own = ~flipped
            caption = self._caption(
                self.captioner, features[own], self._one_caption(texts[own]), changed[own]
            )
            self.log("caption", caption, prog_bar=True, sync_dist=True)
            loss = loss + self.settings.caption_weight * caption
        if self.regions is not None and regions is not None:
            known = regions.attributes.masked_fill(changed[:, None], NO_LABEL)
            region, _ = self.regions.loss(patches, features, regions._replace(attributes=known))
            self.log("region", region, prog_bar=True, sync_dist=True)
            loss = loss + self.settings.region_weight * region
        return loss

    def _contrastive(self, features: Tensor, texts: Tensor, pixels: Tensor) -> Tensor:
        """The contrastive loss of a batch, and the distance to the anchor where there is one.

        Args:
            features: Image features [B, D].
            texts: Token ids [B, C, L] of the captions of each; one of them is drawn.
            pixels: Of the same pictures, normalised, [B, 3, S, S].
        """
        chosen = self._one_caption(texts)
        words = self.text_features(chosen)
        loss = contrastive_loss(
            F.normalize(features.float(), dim=-1),
            F.normalize(words.float(), dim=-1),
            self.clip.logit_scale.exp().clamp(max=100),
            self.settings.hard_negatives,
        )
        self.log("contrastive", loss, prog_bar=True, sync_dist=True)
        if self.anchor is not None:
            moved = drift(features, self.anchor.images(pixels))
            moved = moved + drift(words, self.anchor.texts(self._trimmed(chosen)))
            self.log("anchor", moved, prog_bar=True, sync_dist=True)
            loss = loss + self.settings.anchor_weight * moved
        return loss

    def _one_caption(self, texts: Tensor) -> Tensor:
        """A random caption [B, L] of the captions [B, C, L] of each picture.

        The numbers of all ranks are drawn, and each rank takes its own: the captions are those that
        one process would take for the whole batch.
        """
        count = len(texts)
        numbers = torch.randint(texts.shape[1], (world_size() * count,), generator=self.draws)
        own = numbers[rank() * count : (rank() + 1) * count].to(texts.device)
        return texts[torch.arange(count, device=texts.device), own]

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
        dropout = self.settings.captioner.word_dropout
        mean = captioner(features, labels, dropout, self.prior)
        return mean_over_all(mean, (labels != IGNORED).sum())

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
            self.log_dict(figures, batch_size=len(pixels), prog_bar=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log recall of retrieval among the pictures and captions of the split."""
        own = [torch.cat(part).cpu() for part in zip(*self.validated, strict=True)]
        self.validated.clear()
        every = zip(*objects_of_all_ranks(own), strict=True)
        features, text, counts = (torch.cat(part) for part in every)
        images, texts = F.normalize(features, dim=-1), F.normalize(text, dim=-1)
        owner = torch.arange(len(images)).repeat_interleave(counts)
        figures = recall_at(images, texts, owner, (1, 5))
        # Every rank has the same figures, so their mean is what it was.
        self.log_dict(figures, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up, then the schedule of the settings."""
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.settings, steps)

    def _shifted(self, pixels: Tensor, regions: Regions | None) -> tuple[Tensor, Regions | None]:
        """The batch and its boxes moved by one random offset; edges are repeated."""
        reach = self.settings.shift
        if reach == 0:
            return pixels, regions
        padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate")
        top, left = torch.randint(2 * reach + 1, (2,), generator=self.draws).tolist()
        moved = padded[:, :, top : top + self.size, left : left + self.size]
        if regions is not None:
            across, down = (reach - left) / self.size, (reach - top) / self.size
            moves = [across, down, across, down]
            offset = torch.tensor(moves, device=regions.boxes.device)
            regions = regions._replace(boxes=regions.boxes + offset)
        return moved, regions
