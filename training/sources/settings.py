"""Settings of the sources: their blocks of `training/conf/config.yaml`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class SceneSplitFractions:
    """SplitFractions of the scenes per split; they add up to 1."""

    train: float
    val: float
    test: float
    compositional: float


@dataclasses.dataclass
class Scenes:
    """The drawn data set: how many pictures, where, and their sides in pixels (low, high)."""

    seed: int
    count: int
    out: str
    fractions: SceneSplitFractions
    sides: list[int]


@dataclasses.dataclass
class SplitFractions:
    """SplitFractions of the pictures per split; they add up to 1."""

    train: float
    val: float
    test: float


@dataclasses.dataclass
class OwnPictures:
    """What every source of one's own pictures has.

    `fractions` and `seed` split the pictures. `on_broken` is `stop` or `skip`; pictures over
    `max_pixels` are broken; `workers` processes decode.
    """

    out: str
    seed: int
    fractions: SplitFractions
    on_broken: str
    max_pixels: int
    workers: int


@dataclasses.dataclass
class Folder(OwnPictures):
    """Pictures of one's own with their captions.

    `captions` is a file in `path`, null for the one called captions.csv, .jsonl or .json; it may
    split the pictures itself.
    """

    path: str | None
    captions: str | None


@dataclasses.dataclass
class WebDataset(OwnPictures):
    """Tar files with pictures and captions, which stay where they are.

    `shards` is a folder of .tar files, or their names: shards/{00000..00009}.tar.
    """

    shards: str | None


@dataclasses.dataclass
class ArchiveHashes:
    """SHA-256 of COCO's archives, in hex; null leaves one unchecked."""

    train2014: str | None
    val2014: str | None
    caption_datasets: str | None


@dataclasses.dataclass
class Coco:
    """COCO 2014 in Karpathy's splits.

    `images_url` is where train2014.zip and val2014.zip are, `captions_url` where
    caption_datasets.zip is; they are kept in `downloads`. `restval_to_train` counts the pictures
    of COCO's val2014 that are in neither val nor test to train; else they are a split `restval`.
    """

    out: str
    downloads: str
    images_url: str
    captions_url: str
    sha256: ArchiveHashes
    restval_to_train: bool
