"""Batches of pixels with captions and boxes, for CLIP's contrastive training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
)
from transformers import PreTrainedTokenizerBase

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
        order = sorted(rows)
        regions = self.regions
        if regions is not None:
            regions = Regions(*(part[order] for part in regions))
        return torch.from_numpy(self.pixels[order]), self.texts[order].long(), regions

    def loader(self, batch_size: int, shuffled: bool) -> DataLoader[ContrastiveBatch]:
        """Batches of this size, or of all rows if there are fewer.

        Shuffled ones leave out the last batch if it is smaller.
        """
        order = RandomSampler(self) if shuffled else SequentialSampler(self)
        batches = BatchSampler(order, min(batch_size, len(self)), drop_last=shuffled)
        return DataLoader(self, sampler=batches, batch_size=None)


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
