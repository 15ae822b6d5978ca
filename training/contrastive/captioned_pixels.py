"""Batches of pixels with captions and boxes, for CLIP's contrastive training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from training.contrastive.batches import ResumableLoader, SharedBatches
from training.contrastive.module import ContrastiveBatch
from training.contrastive.regions import Regions
from training.data.dataset import CaptionDataset


class CaptionedPixels(Dataset[ContrastiveBatch]):
    """The pictures of a split; an item is a batch, by the list of its rows.

    See `training.contrastive.module.ContrastiveBatch`.

    Args:
        pixels: uint8 [N, 3, S, S], usually memory-mapped.
        texts: Token ids [N, C, L] of every picture's captions.
        regions: Every picture's boxes, or None.
    """

    def __init__(self, pixels: np.ndarray, texts: Tensor, regions: Regions | None) -> None:
        self.pixels = pixels
        self.texts = texts
        self.regions = regions

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.texts)

    def __getitem__(self, rows: list[int]) -> ContrastiveBatch:
        """The pictures of these rows, all their captions and all their boxes."""
        chosen = np.asarray(rows)
        order = np.argsort(chosen)  # pictures are read from the disk in their order there
        pixels = np.empty((len(rows), *self.pixels.shape[1:]), self.pixels.dtype)
        pixels[order] = self.pixels[chosen[order]]
        regions = self.regions
        if regions is not None:
            regions = Regions(*(part[rows] for part in regions))
        return torch.from_numpy(pixels), self.texts[rows].long(), regions

    def loader(
        self, batch_size: int, shuffled: bool, seed: int = 0, rank: int = 0, ranks: int = 1
    ) -> ResumableLoader:
        """This rank's batches (see `SharedBatches`, also for the arguments)."""
        batches = SharedBatches(len(self), batch_size, shuffled, seed, rank, ranks)
        return ResumableLoader(self, batches)


def caption_tokens(
    dataset: CaptionDataset, split: str, tokenizer: PreTrainedTokenizerBase, length: int
) -> Tensor:
    """Token ids [N, C, L] of a split; pictures with fewer than C captions repeat theirs."""
    per_image = max(len(dataset.captions[i]) for i in dataset.ids(split))
    texts: list[str] = []
    for image_id in dataset.ids(split):
        own = dataset.captions[image_id]
        texts.extend(own[k % len(own)] for k in range(per_image))
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length)["input_ids"]
    table = torch.tensor(ids, dtype=torch.int16 if len(tokenizer) < 32768 else torch.int32)
    return table.view(-1, per_image, length)
