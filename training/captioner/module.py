"""The LightningModule of the captioner: caption loss, validation CIDEr, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from model.network.captioner import IGNORED, ClipCap
from model.network.conversion import build_decoder
from model.network.search import Search
from training.captioner.batches import Share
from training.captioner.data import CaptionBatch
from training.captioner.objectives.pair_prior import PairPrior
from training.captioner.objectives.turned_sentences import TurnedSentences
from training.captioner.optimization import adamw
from training.captioner.text_features import noisy
from training.captioner.tuning import CLIP, GPT2, merged, tunable
from training.config import Train
from training.encoding.pixel_cache import normalised


class CaptionerModule(pl.LightningModule):
    """Trains a captioner on cached features, or on pixels and its encoder with it.

    Args:
        captioner: Mapper and GPT-2; with an encoder, the images of batches are uint8 pixels
            [U, 3, S, S], without one they are features [U, D] or [U, P, D].
        settings: See `training.config.Train`.
        val_images: Yields a device's share of the N validation images, a part at a time.
        val_cider: Scores N generated captions, given as token ids without the end token.
        prior: Prior on pairs of words, added to the logits of the training loss only.
        turned: Pairs of phrases of which one turns the other round, for a loss of their own.
    """

    def __init__(
        self,
        captioner: ClipCap,
        settings: Train,
        val_images: Callable[[Share], Iterable[Tensor]],
        val_cider: Callable[[Sequence[Sequence[int]]], float],
        prior: PairPrior | None = None,
        turned: TurnedSentences | None = None,
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.settings = settings
        self.val_images = val_images
        self.val_cider = val_cider
        self.prior = prior
        self.turned = turned
        #: Of the validation batches so far: sum of the loss over the tokens, and their number.
        self.validated: list[Tensor] = []
        captioner.train()  # a loaded encoder is in evaluation mode
        captioner.gpt2 = tunable(captioner.gpt2, settings.tuning, settings.lora, GPT2)
        if captioner.clip is not None:
            clip = settings.clip
            captioner.clip = tunable(captioner.clip, clip.tuning, clip.lora, CLIP)
        preprocessing = captioner.config.preprocessing
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def on_train_epoch_start(self) -> None:
        """Put a frozen GPT-2 and batch normalisations into evaluation mode.

        Lightning sets training mode before every epoch. A frozen GPT-2 must run without dropout,
        and the running statistics of a ResNet must stay as they are.
        """
        if self.settings.tuning == "frozen":
            self.captioner.gpt2.train(False)
        for module in self.captioner.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def on_train_batch_start(self, batch: CaptionBatch, index: int) -> None:
        """Seed the random numbers of a batch, such as dropout (see `batch_seed`).

        So a resumed run draws the same numbers as one without an interruption.
        """
        part = index % self.trainer.accumulate_grad_batches
        torch.manual_seed(batch_seed(self.settings.seed, self.global_step, self.global_rank, part))

    def features(self, images: Tensor) -> Tensor:
        """Features [U, D] or [U, P, D] of images; pixels are encoded by CLIP as it is now.

        Text features that stand for images get their noise, in training mode.
        """
        if self.settings.text_only and self.training:
            return noisy(images, self.settings.text_noise)
        if self.captioner.clip is None:
            return images
        return self.captioner.encode(normalised(images, self.mean, self.std))

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        """Mean cross-entropy per token, in nats, and the loss on turned sentences.

        With a prior on pairs of words it is that of the logits with the prior added, and is not
        comparable with `val_loss`.
        """
        images, owners, labels = batch
        loss = self.captioner(
            self.features(images),
            labels,
            self.settings.word_dropout,
            self._with_priors,
            owners,
            self.settings.label_smoothing,
        )
        loss, logged = self._over_devices(loss, labels)
        self.log("train_loss", logged, prog_bar=True)
        if self.turned is not None:
            turned = self.turned.take_loss()
            self.log("turned_loss", turned, sync_dist=True)
            loss = loss + self.settings.turned_weight * turned
        return loss

    def _over_devices(self, loss: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to differentiate, and the mean loss of a token on all devices, to log.

        The devices' gradients are averaged. Their captions have different numbers of tokens, so
        each one's loss is weighted by its share of the tokens: the average is then the gradient of
        the whole batch, as one device would compute it.
        """
        devices = self.trainer.world_size
        if devices == 1:
            return loss, loss
        tokens = (labels != IGNORED).sum()
        sums = torch.stack([loss.detach() * tokens, tokens.to(loss.dtype)])
        total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").unbind()
        return loss * (tokens * devices / count), total / count

    def _with_priors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits [n, V] that the training loss takes, from those of the captioner."""
        for prior in (self.prior, self.turned):
            if prior is not None:
                logits = prior(logits, labels)
        return logits

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        """Collect the cross-entropy of the validation captions, without prior and smoothing."""
        images, owners, labels = batch
        loss = self.captioner(self.features(images), labels, owners=owners)
        tokens = (labels != IGNORED).sum()
        self.validated.append(torch.stack([loss * tokens, tokens.to(loss.dtype)]))

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of a token, and CIDEr of greedy captions, which selects the best epoch.

        Every device has validated its share of the captions, and captions its share of the images.
        """
        share = Share(self.trainer.global_rank, self.trainer.world_size)
        total, count = self.trainer.strategy.reduce(
            torch.stack(self.validated).sum(0), reduce_op="sum"
        ).unbind()
        self.validated.clear()
        self.log("val_loss", total / count, prog_bar=True, sync_dist=True)
        captions = self._captions(share)
        if share.devices > 1:
            parts: list[list[list[int]]] = [[] for _ in range(share.devices)]
            dist.all_gather_object(parts, captions)
            captions = [ids for part in parts for ids in part]
        self.log("val_CIDEr", self.val_cider(captions), prog_bar=True, sync_dist=True)

    def _captions(self, share: Share) -> list[list[int]]:
        """Greedy captions of a share of the validation images, without the end token."""
        decoder = build_decoder(merged(self.captioner.gpt2))
        search = Search(decoder, self.captioner.config.end_token_id).eval().to(self.device)
        captions: list[list[int]] = []
        room = self.captioner.gpt2.config.n_positions - self.captioner.config.mapper.prefix_length
        for images in self.val_images(share):
            prefix = self.captioner.prefix(self.features(images.to(self.device)))
            longest = min(self.settings.max_tokens, room)
            tokens, lengths, _, _ = search(prefix, 1, 1, longest, 0, 1.0)
            for ids, length in zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True):
                ended = ids[length - 1] == self.captioner.config.end_token_id
                captions.append(ids[: length - 1] if ended else ids[:length])
        return captions

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a linear warm-up over a share of the steps, then the schedule."""
        clip = self.captioner.clip
        parts = [] if clip is None else [(clip, self.settings.clip.learning_rate)]
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.settings, steps, parts)


def batch_seed(seed: int, step: int, rank: int, part: int) -> int:
    """Seed of a batch's random numbers; every batch of an optimiser step has another one.

    Args:
        seed: Seed of the run.
        step: Optimiser steps so far.
        rank: Number of the device among all devices, from 0.
        part: Number of the batch among those whose gradients are accumulated for a step, from 0.

    Returns:
        Seed + step for the only batch of a step, else 32 mixed bits. Torch's generator on the CPU
        reads 32 bits of a seed only.
    """
    if rank == part == 0:
        return seed + step
    return int(np.random.SeedSequence((seed, step, rank, part)).generate_state(1)[0])
