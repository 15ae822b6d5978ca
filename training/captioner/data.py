"""Captions and images as Lightning feeds them to the captioner.

All captions are tokenised once into one flat array in a memory-mapped temporary file, with 2 bytes
a token for a vocabulary below 65,536. In memory a caption takes 12 bytes: its start in the array,
the row of its image, and its position in the order of the epoch. A batch is padded to its own
longest caption and holds each of its images once. Captions of all images are mixed. Batches of few
images with all their captions would need less work of a CLIP that is trained too, but training on
them converges more slowly.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from model.network.captioner import IGNORED
from model.refusal import Refusal
from training.data.dataset import CaptionDataset
from training.encoding.feature_file import FeatureRows

#: Images [U, ...], each once; the index among them of each caption's image, int64 [B]; and labels,
#: int64 [B, T], `IGNORED` behind the end token.
CaptionBatch = tuple[Tensor, Tensor, Tensor]
#: Images of a split, [N, ...]; both are read by rows.
Images = np.ndarray | FeatureRows
#: Images at a time when all images of a split are read.
IMAGES_PER_PART = 128
#: Captions at a time when the labels of all captions of a split are read.
CAPTIONS_PER_PART = 4096
#: Images whose captions are tokenised together; it bounds how many Python strings exist at a time.
IMAGES_TOKENISED_TOGETHER = 256


class TokenizedCaptions(Dataset[CaptionBatch]):
    """Captions with their images, by lists of caption numbers.

    Args:
        dataset: The data set.
        split: Name of the split.
        images: The images, as cached features or as pixels, [N, ...].
        rows: Row in `images` of each image of the split, in its order; -1 for one without a
            feature, which is left out.
        tokenizer: Text to tokens.
        end_token_id: Token appended to every caption.
        max_tokens: Longer captions are cut to this, the end token included. Their number and the
            length of the longest are printed.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        split: str,
        images: Images,
        rows: np.ndarray,
        tokenizer: Tokenizer,
        end_token_id: int,
        max_tokens: int,
    ) -> None:
        ids = dataset.ids(split)
        self.images = images
        self.image_ids = array("q", (i for i, row in zip(ids, rows, strict=True) if row >= 0))
        if not self.image_ids:
            raise Refusal(f"no image of split {split!r} has a feature; encode the data set again")
        self.image_rows = rows = rows[rows >= 0]
        small = tokenizer.get_vocab_size() <= np.iinfo(np.uint16).max
        starts = array("q", [0])
        counts: list[int] = []  # captions of each image
        cut, longest = 0, 0  # number of cut captions; tokens of the longest, the end token included
        with tempfile.TemporaryFile() as file:
            for start in range(0, len(self.image_ids), IMAGES_TOKENISED_TOGETHER):
                ids_in_part = self.image_ids[start : start + IMAGES_TOKENISED_TOGETHER]
                own = [dataset.captions[i] for i in ids_in_part]
                counts += map(len, own)
                texts = list(itertools.chain.from_iterable(own))
                tokens, before = array("H" if small else "i"), starts[-1]
                for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                    length = len(encoding.ids) + 1
                    cut += length > max_tokens
                    longest = max(longest, length)
                    tokens.extend(encoding.ids[: max_tokens - 1])
                    tokens.append(end_token_id)
                    starts.append(before + len(tokens))
                tokens.tofile(file)
            if not sum(counts):
                raise Refusal(f"split {split!r} of {dataset.root} has images but no captions")
            if cut:
                print(
                    f"note: {cut} of {sum(counts)} captions of split {split!r} are longer than "
                    f"train.max_tokens={max_tokens} and are cut; the longest has {longest} tokens "
                    "(with the end token)",
                    file=sys.stderr,
                )
            self.tokens = np.memmap(file, np.uint16 if small else np.int32, "r+")
        self.starts = np.array(starts, np.min_scalar_type(starts[-1]))
        #: Row of every caption's image.
        self.owners = np.repeat(rows.astype(np.min_scalar_type(len(images))), counts)

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.owners)

    def __getitem__(self, numbers: Sequence[int]) -> CaptionBatch:
        """These captions, and each of their images once."""
        chosen = np.asarray(numbers)
        rows, owners = np.unique(self.owners[chosen], return_inverse=True)
        images = torch.from_numpy(self.images[rows])
        return images, torch.from_numpy(owners), self.labels(chosen)

    def labels(self, numbers: np.ndarray) -> Tensor:
        """The labels [B, T] of these captions."""
        starts, ends = self.starts[numbers], self.starts[numbers + 1]
        labels = np.full((len(numbers), (ends - starts).max()), IGNORED, np.int64)
        for line, (start, end) in enumerate(zip(starts, ends, strict=True)):
            labels[line, : end - start] = self.tokens[start:end]
        return torch.from_numpy(labels)

    def label_parts(self) -> Iterator[Tensor]:
        """The labels of all captions, at most `CAPTIONS_PER_PART` at a time."""
        for start in range(0, len(self), CAPTIONS_PER_PART):
            yield self.labels(np.arange(start, min(start + CAPTIONS_PER_PART, len(self))))

    def image_parts(self) -> Iterator[Tensor]:
        """The images in the order of `image_ids`, at most `IMAGES_PER_PART` at a time."""
        for start in range(0, len(self.image_rows), IMAGES_PER_PART):
            rows = self.image_rows[start : start + IMAGES_PER_PART]
            yield torch.from_numpy(self.images[rows])


class ShuffledBatches(Sampler[list[int]]):
    """Batches of caption numbers: each caption once an epoch, in random order.

    The order depends on seed and epoch only, so a resumed run sees the batches that it would have
    seen without the interruption.

    Args:
        owners: Row of each caption's image, integers [N], ascending.
        batch_size: Captions a batch.
        seed: Seed of the order.
        together: Captions of an image that follow one another, at most.
    """

    def __init__(self, owners: np.ndarray, batch_size: int, seed: int, together: int = 1) -> None:
        self.owners = owners
        self.batch_size = batch_size
        self.seed = seed
        self.together = together
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.owners) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch."""
        order = self._order()
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()

    def _order(self) -> np.ndarray:
        """Caption numbers in the order of this epoch.

        A method of its own, so that its large temporary arrays are freed before the first batch.
        """
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.owners))
        order = order[np.argsort(self.owners[order], kind="stable")]  # those of an image are random
        _, first, counts = np.unique(self.owners, return_index=True, return_counts=True)
        turn = np.arange(len(order)) - np.repeat(first, counts)  # 0, 1, … in each image
        group = np.cumsum(turn % self.together == 0) - 1
        order = order[np.argsort(random.permutation(group[-1] + 1)[group], kind="stable")]
        return order.astype(np.min_scalar_type(len(order)))


class CaptionDataModule(pl.LightningDataModule):
    """Shuffled training batches and ordered validation batches.

    Args:
        train: Training captions.
        val: Validation captions.
        batch_size: Captions a batch.
        seed: Seed of the order of the training captions.
        together: Training captions of an image that follow one another, at most.
    """

    def __init__(
        self,
        train: TokenizedCaptions,
        val: TokenizedCaptions,
        batch_size: int,
        seed: int,
        together: int = 1,
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.seed = seed
        self.together = together

    def train_dataloader(self) -> DataLoader[CaptionBatch]:
        """Every caption once an epoch, in random order."""
        batches = ShuffledBatches(self.train.owners, self.batch_size, self.seed, self.together)
        return DataLoader(self.train, sampler=batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[CaptionBatch]:
        """Every validation caption, in file order."""
        batches = BatchSampler(SequentialSampler(self.val), self.batch_size, drop_last=False)
        return DataLoader(self.val, sampler=batches, batch_size=None)
