"""The LightningModule of the captioner: caption loss, validation CIDEr, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from model.network.captioner import IGNORED, ClipCap
from model.network.conversion import build_decoder
from model.network.search import Search
from training.captioner.data import CaptionBatch
from training.captioner.optimization import adamw
from training.captioner.pair_prior import PairPrior
from training.captioner.tuning import CLIP, GPT2, merged, prepare
from training.config import Train
from training.encoding.pixel_cache import normalised


class CaptionerModule(pl.LightningModule):
    """Trains a captioner on cached features, or on pixels and its encoder with it.

    Args:
        captioner: Mapper and GPT-2; with an encoder, the images of batches are uint8 pixels
            [U, 3, S, S], without one they are features [U, D] or [U, P, D].
        settings: See `training.config.Train`.
        steps: Optimiser steps in all, for the schedule.
        val_images: Gives the N validation images, a part at a time.
        val_cider: Scores N generated captions, given as token ids without the end token.
        prior: Of attributes and what follows them, for the training loss.
    """

    def __init__(
        self,
        captioner: ClipCap,
        settings: Train,
        steps: int,
        val_images: Callable[[], Iterable[Tensor]],
        val_cider: Callable[[Sequence[Sequence[int]]], float],
        prior: PairPrior | None = None,
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.settings = settings
        self.steps = steps
        self.val_images = val_images
        self.val_cider = val_cider
        self.prior = prior
        captioner.train()  # an encoder comes in evaluation mode
        captioner.gpt2 = prepare(captioner.gpt2, settings.tuning, settings.lora, GPT2)
        if captioner.clip is not None:
            clip = settings.clip
            captioner.clip = prepare(captioner.clip, clip.tuning, clip.lora, CLIP)
        preprocessing = captioner.config.preprocessing
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def on_train_epoch_start(self) -> None:
        """A frozen GPT-2 runs without dropout, and a ResNet's statistics stay: fixed functions."""
        if self.settings.tuning == "frozen":
            self.captioner.gpt2.eval()
        for module in self.captioner.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def on_train_batch_start(self, batch: CaptionBatch, index: int) -> None:
        """Dropout follows from seed and step alone, so that a resumed run goes the same way."""
        torch.manual_seed(self.settings.seed + self.global_step)

    def features(self, images: Tensor) -> Tensor:
        """Features [U, D] or [U, P, D] of a batch's images, by CLIP as it is now if it learns."""
        if self.captioner.clip is None:
            return images
        return self.captioner.encode(normalised(images, self.mean, self.std))

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        """Negative log-likelihood per token."""
        images, owners, labels = batch
        features, dropout = self.features(images), self.settings.word_dropout
        loss = self.captioner(features, labels, dropout, self.prior, owners)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        """The same loss on the validation captions."""
        images, owners, labels = batch
        tokens = int((labels != IGNORED).sum())
        loss = self.captioner(self.features(images), labels, owners=owners)
        self.log("val_loss", loss, prog_bar=True, batch_size=tokens)

    def on_validation_epoch_end(self) -> None:
        """Greedy captions of the validation images, scored: what the best checkpoint goes by."""
        decoder = build_decoder(merged(self.captioner.gpt2))
        search = Search(decoder, self.captioner.config.end_token_id).eval().to(self.device)
        captions: list[list[int]] = []
        room = self.captioner.gpt2.config.n_positions - self.captioner.config.mapper.prefix_length
        for images in self.val_images():
            prefix = self.captioner.prefix(self.features(images.to(self.device)))
            tokens, lengths, _ = search(prefix, 1, 1, min(self.settings.max_tokens, room), 0, 1.0)
            for ids, length in zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True):
                ended = ids[length - 1] == self.captioner.config.end_token_id
                captions.append(ids[: length - 1] if ended else ids[:length])
        self.log("val_CIDEr", self.val_cider(captions), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, warm-up over a share of the steps, linear to zero."""
        clip = self.captioner.clip
        parts = [] if clip is None else [(clip, self.settings.clip.learning_rate)]
        return adamw(self, self.settings, self.steps, "linear", parts)
