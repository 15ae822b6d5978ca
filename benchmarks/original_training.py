"""ClipCap's training as it was published, written out plainly: what ours is compared with.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734, section 3;
where the paper says nothing, this does what their released code does: float32, AdamW, a linear
schedule with 5,000 steps of warm-up however long the training is, captions padded to one length,
logits for the padding too, token 0 left out of the loss, gradients also for a GPT-2 that is not
trained, the last incomplete batch dropped, no validation: the last epoch is kept. No end token is
learned; a caption ends at its full stop.

Axes: B captions of a batch, K prefix length, T tokens, D feature width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from model.network.captioner import IGNORED, ClipCap
from training.captioner.data import TokenizedCaptions

#: Of the released code: learning rate, steps of warm-up, captions of a batch.
RATE, WARM_UP, BATCH = 2e-5, 5000, 40


def padded_length(captions: TokenizedCaptions) -> int:
    """Tokens that every caption is padded to: mean and ten standard deviations, or the longest."""
    lengths = torch.from_numpy(captions.starts.astype("int64")).diff().float()
    return int(min(float(lengths.mean() + 10 * lengths.std()), float(lengths.max())))


def padded(labels: Tensor, length: int) -> Tensor:
    """Labels [B, T'] of ours as the original's tokens [B, T]: cut or padded with 0 to `length`."""
    tokens = labels[:, :length].masked_fill(labels[:, :length] == IGNORED, 0)
    return F.pad(tokens, (0, length - tokens.shape[1]))


def caption_loss(captioner: ClipCap, features: Tensor, tokens: Tensor) -> Tensor:
    """The loss of captions, a feature [B, D] and tokens [B, T] each."""
    prefix = captioner.mapper(features)  # [B, K, E]
    words = captioner.gpt2.transformer.wte(tokens)
    mask = torch.cat([torch.ones(prefix.shape[:2]), (tokens > 0).float()], 1)
    read = captioner.gpt2(inputs_embeds=torch.cat([prefix, words], 1), attention_mask=mask)
    logits = read.logits[:, prefix.shape[1] - 1 : -1]  # [B, T, V]
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=0)


def train_original(
    captioner: ClipCap, captions: TokenizedCaptions, epochs: int, rate: float = RATE
) -> None:
    """Train mapper and GPT-2 in place.

    Args:
        captioner: Without its encoder; random weights of torch's present seed.
        captions: Of the training split, each ended by a full stop.
        epochs: How often each caption is read.
        rate: Learning rate after the warm-up.
    """
    length = padded_length(captions)
    numbers = DataLoader(range(len(captions)), BATCH, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=rate)
    steps = epochs * len(numbers)
    schedule = get_linear_schedule_with_warmup(optimizer, WARM_UP, max(steps, WARM_UP + 1))
    captioner.train()
    for features, tokens in _batches(captions, numbers, epochs, length):
        optimizer.zero_grad()
        caption_loss(captioner, features, tokens).backward()
        optimizer.step()
        schedule.step()
    captioner.eval()


def _batches(
    captions: TokenizedCaptions, numbers: DataLoader[int], epochs: int, length: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(epochs):
        for chosen in numbers:
            features, owners, labels = captions[chosen.tolist()]
            yield features[owners], padded(labels, length)
