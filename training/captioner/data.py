"""Captions and images as Lightning feeds them to the captioner.

All captions are tokenised once into one flat array in a memory-mapped temporary file, with 2 bytes
a token for a vocabulary below 65,536. In memory a caption takes 12 bytes: its start in the array,
the row of its image, and its position in the order of the epoch. A batch is padded to its own
longest caption and holds each of its images once. Captions of all images are mixed (see
`training.captioner.batches`). Batches of few images with all their captions would need less work of
a CLIP that is trained too, but training on them converges more slowly.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.network.captioner import IGNORED
from model.refusal import Refusal
from training.captioner.batches import ALONE, OrderedBatches, Share, ShuffledBatches
from training.config import Train
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
                    own_ids: list[int] = encoding.ids
                    if own_ids[-1:] == [end_token_id]:  # a full stop, where that is the end token
                        own_ids = own_ids[:-1]
                    length = len(own_ids) + 1
                    cut += length > max_tokens
                    longest = max(longest, length)
                    tokens.extend(own_ids[: max_tokens - 1])
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

    def own_images(self) -> None:
        """Give each caption an image of its own: the rows of `images` are those of the captions."""
        self.owners = np.arange(len(self.owners), dtype=np.min_scalar_type(len(self.owners)))

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

    def lengths(self) -> np.ndarray:
        """Tokens of each caption, the end token included, integers [N]."""
        return np.diff(self.starts)

    def image_parts(self, share: Share = ALONE) -> Iterator[Tensor]:
        """The images in the order of `image_ids`, at most `IMAGES_PER_PART` at a time.

        Args:
            share: A device's part of the images.
        """
        own = share.of(self.image_rows)
        for start in range(0, len(own), IMAGES_PER_PART):
            yield torch.from_numpy(self.images[own[start : start + IMAGES_PER_PART]])


class TrainingBatches:
    """The training batches of an epoch; the first one may begin in the middle of it.

    Lightning asks for the iterator before it sets the epoch, and workers would read ahead in the
    order of another epoch. Here the reading begins with the first batch that is taken.

    Args:
        source: Gives a batch for a list of numbers.
        sampler: The lists. Lightning sets the epoch of what has this name.
        first: Batches of the first epoch that are left out, because they were trained on before.
        workers: Processes that read ahead.
    """

    def __init__(
        self, source: Dataset[Any], sampler: ShuffledBatches, first: int, workers: int
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.first = first
        self.workers = workers
        #: Batches of this epoch that were taken, those left out included.
        self.taken = first

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        """The batches of this epoch that are left."""
        self.taken, self.first = self.first, 0
        left = itertools.islice(self.sampler, self.taken, None)
        pinned = torch.cuda.is_available()  # copied to a GPU while it computes
        batches: DataLoader[Any] = DataLoader(
            self.source, None, sampler=left, num_workers=self.workers, pin_memory=pinned
        )
        for batch in batches:
            self.taken += 1
            yield batch


class CaptionDataModule(pl.LightningDataModule):
    """Shuffled training batches and ordered validation batches.

    Its state, of which Lightning puts a copy into every checkpoint, is how many batches of the
    epoch were trained on. So a run that was killed in the middle of an epoch goes on there.

    Args:
        train: Training captions.
        val: Validation captions.
        settings: See `training.config.Train`.
    """

    def __init__(self, train: TokenizedCaptions, val: TokenizedCaptions, settings: Train) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.settings = settings
        self._first = 0
        self._batches: TrainingBatches | None = None

    def train_dataloader(self) -> TrainingBatches:
        """Every caption once an epoch, in random order."""
        source, sampler = self.training_source()
        self._batches = TrainingBatches(source, sampler, self._first, self.settings.workers)
        return self._batches

    def training_source(self) -> tuple[Dataset[Any], ShuffledBatches]:
        """What the training batches are read from by lists of numbers, and the lists."""
        settings = self.settings
        return self.train, ShuffledBatches(
            self.train.owners,
            settings.batch_size,
            settings.seed,
            settings.captions_together,
            self.train.lengths() if settings.bucket_batches else None,
            settings.bucket_batches,
            self.share(),
        )

    def val_dataloader(self) -> DataLoader[CaptionBatch]:
        """Every validation caption, in file order."""
        batches = OrderedBatches(len(self.val), self.settings.batch_size, self.share())
        return DataLoader(self.val, None, sampler=batches, num_workers=self.settings.workers)

    def state_dict(self) -> dict[str, int]:
        """Batches of the present epoch that were trained on; 0 at its end."""
        if self._batches is None or self.trainer is None or self.trainer.is_last_batch:
            return {"batches": 0}
        return {"batches": self._batches.taken}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin where the run of this checkpoint was; Lightning asks for the batches after that."""
        self._first = state_dict["batches"]

    def share(self) -> Share:
        """This device's part of every batch."""
        trainer = self.trainer
        return Share(trainer.global_rank, trainer.world_size) if trainer is not None else ALONE
