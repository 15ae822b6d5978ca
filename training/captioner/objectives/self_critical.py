"""Self-critical training: a captioner learns from the score of captions that it writes itself.

Cross-entropy teaches the next word of captions that people wrote. Here the captioner writes several
captions of an image by chance, each is scored by CIDEr-D, and those that are better than the others
of the image become more likely (Rennie et al.: "Self-critical Sequence Training for Image
Captioning", arXiv 1612.00563). What a caption is compared with is the mean score of the other
captions of its image, which needs no second search (Luo: "A Better Variant of Self-Critical
Sequence Training", arXiv 2003.09971).

It starts from a captioner that cross-entropy has trained (`train.init`): captions written by chance
are of no use before that.

Axes: B images of a batch, S captions of each, T tokens, K prefix length, E GPT-2 width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import DynamicCache

from model.network.captioner import IGNORED, ClipCap
from training.captioner.batches import Share, ShuffledBatches
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.module import CaptionerModule
from training.config import Train
from training.evaluation.scores.cider_reward import CiderReward

#: Images [B, ...], and the place of each among the images of the training split, int64 [B].
ImageBatch = tuple[Tensor, Tensor]


class ImagesAlone(Dataset[ImageBatch]):
    """The images of captions, by lists of their places in `captions.image_ids`."""

    def __init__(self, captions: TokenizedCaptions) -> None:
        self.captions = captions

    def __len__(self) -> int:
        """Number of images."""
        return len(self.captions.image_rows)

    def __getitem__(self, places: Sequence[int]) -> ImageBatch:
        """These images."""
        rows = self.captions.image_rows[places]
        return torch.from_numpy(self.captions.images[rows]), torch.tensor(places)


class ImageDataModule(CaptionDataModule):
    """As its base, with training batches of images: each image once an epoch."""

    def training_source(self) -> tuple[Dataset[Any], ShuffledBatches]:
        """Every image once an epoch, in random order."""
        images, settings = ImagesAlone(self.train), self.settings
        numbers = np.arange(len(images))
        return images, ShuffledBatches(
            numbers, settings.batch_size, settings.seed, share=self.share()
        )


class SelfCriticalModule(CaptionerModule):
    """Trains a captioner by the score of its own captions; its batches are `ImageBatch`.

    Args:
        captioner: See `CaptionerModule`; so `settings`, `val_images` and `val_cider`.
        references: The references of each image of the training split, in its order.
        decode: Token ids of captions, without end tokens -> their texts.
    """

    def __init__(
        self,
        captioner: ClipCap,
        settings: Train,
        val_images: Callable[[Share], Iterable[Tensor]],
        val_cider: Callable[[Sequence[Sequence[int]]], float],
        references: Sequence[Sequence[str]],
        decode: Callable[[Sequence[Sequence[int]]], Sequence[str]],
    ) -> None:
        super().__init__(captioner, settings, val_images, val_cider)
        self.references = references
        self.decode = decode
        self.reward = CiderReward(references)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Minus the mean over tokens of log-probability times advantage of their caption.

        The advantage of a caption is its score minus the mean score of the other S - 1 captions of
        its image, so that a batch of equally good captions teaches nothing.
        """
        images, places = batch
        features = self.features(images)
        samples = self.settings.samples
        labels = sampled_captions(
            self.captioner, features.detach(), samples, self.settings.max_tokens
        )
        rewards = self._rewards(labels, places).to(self.device).view(-1, samples)
        others = (rewards.sum(1, keepdim=True) - rewards) / (samples - 1)
        advantages = (rewards - others).flatten()  # [B * S]
        owners = torch.arange(len(images), device=self.device).repeat_interleave(samples)
        logits = self.captioner.token_logits(features, labels, owners=owners)  # [n, V]
        learned = labels != IGNORED
        chosen = logits.log_softmax(-1).gather(1, labels[learned][:, None])[:, 0]
        weights = advantages[:, None].expand_as(labels)[learned]
        loss, logged = self._over_devices(-(weights * chosen).mean(), labels)
        self.log("train_loss", logged, prog_bar=True)
        self.log("train_reward", rewards.mean(), prog_bar=True, sync_dist=True)
        return loss

    def _rewards(self, labels: Tensor, places: Tensor) -> Tensor:
        """The score of each caption, float32 [B * S]."""
        end = self.captioner.config.end_token_id
        rows = [[token for token in row if token != IGNORED] for row in labels.tolist()]
        ended = [row[-1] == end for row in rows]
        texts = self.decode([row[: len(row) - done] for row, done in zip(rows, ended, strict=True)])
        owners = [self.references[place] for place in places.tolist()]
        repeated = [own for own in owners for _ in range(self.settings.samples)]
        rewards = self.reward(list(zip(texts, ended, strict=True)), repeated)
        return torch.from_numpy(rewards).float()


@torch.no_grad()
def sampled_captions(captioner: ClipCap, features: Tensor, samples: int, max_tokens: int) -> Tensor:
    """Captions that are drawn word by word from the captioner's probabilities.

    The draw runs without dropout. Captions that have ended leave the batch.

    Args:
        captioner: Its GPT-2 may have LoRA's matrices.
        features: [B, D] or [B, P, D].
        samples: S, captions of each image.
        max_tokens: Tokens at most, the end token included.

    Returns:
        Labels as `ClipCap.forward` takes them, int64 [B * S, T], those of an image one after
        another. A caption without an end token was cut at `max_tokens`.
    """
    gpt2, training = captioner.gpt2, captioner.gpt2.training
    gpt2.train(False)
    cache = DynamicCache(config=gpt2.config)
    read = gpt2.transformer(None, cache, inputs_embeds=captioner.prefix(features), use_cache=True)
    hidden = read.last_hidden_state[:, -1].repeat_interleave(samples, 0)  # [B * S, E]
    cache.batch_repeat_interleave(samples)
    labels = torch.full((len(hidden), max_tokens), IGNORED, device=hidden.device)
    row = torch.arange(len(hidden), device=hidden.device)  # of each caption that goes on
    for place in range(max_tokens):
        token = gpt2.lm_head(hidden).float().softmax(-1).multinomial(1)[:, 0]
        labels[row, place] = token
        running = token != captioner.config.end_token_id
        if place + 1 == max_tokens or not bool(running.any()):
            break
        if not bool(running.all()):
            row, token = row[running], token[running]
            cache.batch_select_indices(running.nonzero()[:, 0])
        words = gpt2.transformer.wte(token[:, None])
        read = gpt2.transformer(None, cache, inputs_embeds=words, use_cache=True)
        hidden = read.last_hidden_state[:, -1]
    gpt2.train(training)
    return labels[:, : int((labels != IGNORED).sum(1).max())]
