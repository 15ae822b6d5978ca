"""Captions and images as Lightning feeds them to the captioner.

All captions are tokenised once into one flat array, 2 bytes a token for a vocabulary below 65,536,
in a file aside that is mapped into memory. What a machine must have for each caption is 12 bytes:
where it begins, whose it is, and its turn in this epoch. Batches are padded to their own longest
caption only, and hold each of their images once. The captions of all images are mixed: batches of
few images with all their captions would save a CLIP that learns some work, but everything learns
more slowly from them.
"""

from __future__ import annotations

import itertools
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

#: Images [U, ...], each once; for each caption the place of its image among them [B]; and labels
#: [B, T], `IGNORED` behind the end token.
CaptionBatch = tuple[Tensor, Tensor, Tensor]
#: Images at a time where all of a split are gone through.
PART = 128

#: Images whose captions are tokenised together: Python objects of so many exist at a time.
AT_ONCE = 256


class TokenizedCaptions(Dataset[CaptionBatch]):
    """Captions with their images, by lists of caption numbers.

    Args:
        dataset: Where the captions are.
        split: Which of them.
        images: [N, ...] the images, as cached features or as pixels.
        rows: Where the images of the split stand there, in its order; -1 for one that was left
            out there, which is left out here.
        tokenizer: Text to tokens.
        end_token_id: Appended to every caption.
        max_tokens: Longer captions are cut to this, the end token included.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        split: str,
        images: np.ndarray,
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
        with tempfile.TemporaryFile() as file:
            for start in range(0, len(self.image_ids), AT_ONCE):
                own = [dataset.captions[i] for i in self.image_ids[start : start + AT_ONCE]]
                counts += map(len, own)
                texts = list(itertools.chain.from_iterable(own))
                tokens, before = array("H" if small else "i"), starts[-1]
                for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                    tokens.extend(encoding.ids[: max_tokens - 1])
                    tokens.append(end_token_id)
                    starts.append(before + len(tokens))
                tokens.tofile(file)
            if not sum(counts):
                raise Refusal(f"split {split!r} of {dataset.root} has images but no captions")
            self.tokens = np.memmap(file, np.uint16 if small else np.int32, "r+")
        self.starts = np.array(starts, np.min_scalar_type(starts[-1]))
        #: Row of every caption's image.
        self.owners = np.repeat(rows.astype(np.min_scalar_type(len(images))), counts)

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.owners)

    def __getitem__(self, numbers: Sequence[int]) -> CaptionBatch:
        """These captions, and each of their images once."""
        numbers = np.asarray(numbers)
        rows, owners = np.unique(self.owners[numbers], return_inverse=True)
        starts, ends = self.starts[numbers], self.starts[numbers + 1]
        labels = np.full((len(numbers), (ends - starts).max()), IGNORED, np.int64)
        for line, (start, end) in enumerate(zip(starts, ends, strict=True)):
            labels[line, : end - start] = self.tokens[start:end]
        images = torch.from_numpy(self.images[rows])
        return images, torch.from_numpy(owners), torch.from_numpy(labels)

    def image_parts(self) -> Iterator[Tensor]:
        """The images in the order of `image_ids`, at most `PART` at a time."""
        for start in range(0, len(self.image_rows), PART):
            yield torch.from_numpy(self.images[self.image_rows[start : start + PART]])


class ShuffledBatches(Sampler[list[int]]):
    """Every number once an epoch, in an order that seed and epoch alone decide.

    So a resumed run goes on as it would have gone without the interruption.

    Args:
        owners: int64 [N], ascending; whose each number is.
        batch_size: Numbers a batch.
        seed: Another one gives another order.
        together: Numbers of the same owner that follow one another, at most.
    """

    def __init__(self, owners: np.ndarray, batch_size: int, seed: int, together: int = 1) -> None:
        self.owners = owners
        self.batch_size = batch_size
        self.seed = seed
        self.together = together
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch comes next."""
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
        """Of this epoch; a method, so that the tables on the way to it end before the batches."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.owners))
        order = order[np.argsort(self.owners[order], kind="stable")]  # an owner's in random order
        _, first, counts = np.unique(self.owners, return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(first, counts)  # among the owner's own
        group = np.cumsum(place % self.together == 0) - 1
        order = order[np.argsort(random.permutation(group[-1] + 1)[group], kind="stable")]
        return order.astype(np.min_scalar_type(len(order)))


class CaptionDataModule(pl.LightningDataModule):
    """Shuffled training batches and ordered validation batches.

    Args:
        train: Captions to learn from.
        val: Captions to watch.
        batch_size: Captions a batch.
        seed: Decides the order of the training captions.
        together: Training captions of an image that stand side by side, at most.
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

    def train_dataloader(self) -> DataLoader:
        """Every caption once an epoch, in random order."""
        batches = ShuffledBatches(self.train.owners, self.batch_size, self.seed, self.together)
        return DataLoader(self.train, sampler=batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """Every validation caption, in file order."""
        batches = BatchSampler(SequentialSampler(self.val), self.batch_size, drop_last=False)
        return DataLoader(self.val, sampler=batches, batch_size=None)
