"""The LightningModule of the captioner: caption loss, validation CIDEr, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from model.captioner import IGNORED, ClipCap
from model.search import Search
from model.torchscript import build_decoder
from training.config import Train
from training.optimization import adamw
from training.tuning import merged, prepare

#: Images captioned at a time during validation.
VALIDATION_BATCH = 128


class CaptionerModule(pl.LightningModule):
    """Trains a captioner on cached features.

    Args:
        captioner: Mapper and GPT-2, without an encoder.
        settings: See `training.config.Train`.
        steps: Optimiser steps in all, for the schedule.
        val_features: [N, D] features of the validation images.
        val_cider: Scores N generated captions, given as token ids without the end token.
    """

    def __init__(
        self,
        captioner: ClipCap,
        settings: Train,
        steps: int,
        val_features: Tensor,
        val_cider: Callable[[Sequence[Sequence[int]]], float],
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.settings = settings
        self.steps = steps
        self.val_features = val_features
        self.val_cider = val_cider
        captioner.gpt2 = prepare(captioner.gpt2, settings)

    def on_train_epoch_start(self) -> None:
        """A frozen GPT-2 runs without dropout: it is a fixed function."""
        if self.settings.tuning == "frozen":
            self.captioner.gpt2.eval()

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Dropout follows from seed and step alone, so that a resumed run goes the same way."""
        torch.manual_seed(self.settings.seed + self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Negative log-likelihood per token."""
        loss = self.captioner(*batch, word_dropout=self.settings.word_dropout)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """The same loss on the validation captions."""
        tokens = int((batch[1] != IGNORED).sum())
        self.log("val_loss", self.captioner(*batch), prog_bar=True, batch_size=tokens)

    def on_validation_epoch_end(self) -> None:
        """Greedy captions of the validation images, scored: what the best checkpoint goes by."""
        decoder = build_decoder(merged(self.captioner.gpt2))
        search = Search(decoder, self.captioner.config.end_token_id).eval().to(self.device)
        captions: list[list[int]] = []
        room = self.captioner.gpt2.config.n_positions - self.captioner.config.mapper.prefix_length
        for features in self.val_features.split(VALIDATION_BATCH):
            prefix = self.captioner.prefix(features.to(self.device))
            tokens, lengths, _ = search(prefix, 1, 1, min(self.settings.max_tokens, room), 0, 1.0)
            for ids, length in zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True):
                ended = ids[length - 1] == self.captioner.config.end_token_id
                captions.append(ids[: length - 1] if ended else ids[:length])
        self.log("val_CIDEr", self.val_cider(captions), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, warm-up over a share of the steps, linear to zero."""
        return adamw(self, self.settings, self.steps, "linear")
