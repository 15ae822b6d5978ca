"""Settings of the sources: their blocks of `training/conf/config.yaml`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class SplitFractions:
    """The fraction of all pictures that each split gets; the fractions add up to 1."""

    train: float
    val: float
    test: float


@dataclasses.dataclass
class SceneSplitFractions(SplitFractions):
    """The same for drawn scenes, which have one more split.

    Every scene of `compositional` shows pairs (colour and thing, or relation and thing) that no
    scene of the other splits shows.
    """

    compositional: float


@dataclasses.dataclass
class Scenes:
    """The drawn data set.

    `count` is the number of pictures in all splits together. `sides` are the least and the largest
    length of a picture's shorter side, in pixels.
    """

    seed: int
    count: int
    out: str
    fractions: SceneSplitFractions
    sides: list[int]


@dataclasses.dataclass
class OwnPictures:
    """What the two sources of the user's own pictures have in common.

    `fractions` and `seed` decide the split of each picture. `on_broken` is `stop` or `skip`. A
    picture of more than `max_pixels` pixels counts as broken. `workers` processes decode pictures.
    """

    out: str
    seed: int
    fractions: SplitFractions
    on_broken: str
    max_pixels: int
    workers: int


@dataclasses.dataclass
class Folder(OwnPictures):
    """A folder of pictures with captions in one of the forms of docs/data-sets.md.

    `captions` is the name of the caption file in the folder `path`, or a pattern such as
    `annotations/captions_*.json`; null looks for it. `file_column` and `caption_column` are the
    names of columns or fields that are called otherwise than usual. `text_extension` is that of the
    text files beside the pictures; null looks for .txt and .caption. `text_lines` is `one` for a
    caption in each of those files, `each` for one in each line. The captions may name the split of
    each picture; then `fractions` is not used, and `val_share` is the share of train that goes to
    val.
    """

    path: str | None
    captions: str | None
    file_column: str | None
    caption_column: str | None
    text_extension: str | None
    text_lines: str
    val_share: float


@dataclasses.dataclass
class ShardSplits:
    """A pattern of tar names for each split; null for a split without tar files."""

    train: str | None
    val: str | None
    test: str | None


@dataclasses.dataclass
class WebDataset(OwnPictures):
    """Tar files of pictures and captions, which are read in place and not copied.

    `shards` is a folder of .tar files, or a pattern of names: shards/{00000..00009}.tar. `picture`
    is the extension of the picture where samples have several, such as input.jpg. `splits` gives
    each split a pattern of tar names, such as {train: "train-*.tar", val: "val-*.tar"}; then
    `fractions` is not used.
    """

    shards: str | None
    picture: str | None
    splits: ShardSplits


@dataclasses.dataclass
class Feedback(OwnPictures):
    """What people said at the gateway, in its database.

    `database` is its URL, sqlite:///FILE or postgresql://USER@HOST:PORT/NAME. Corrections of
    pictures that people left are captions; with `thumbs_up` served captions that got thumbs up are
    too.
    """

    database: str
    thumbs_up: bool


@dataclasses.dataclass
class ArchiveHashes:
    """SHA-256 of each of COCO's archives, in hex; null does not check that archive."""

    train2014: str | None
    val2014: str | None
    caption_datasets: str | None


@dataclasses.dataclass
class Coco:
    """COCO 2014 in Karpathy's splits.

    `images_url` is the address of the folder with train2014.zip and val2014.zip, `captions_url`
    that of caption_datasets.zip; the three are kept in the folder `downloads`. Karpathy's split
    `restval` has the pictures of COCO's val2014 that are in neither val nor test:
    `restval_to_train` adds them to train, as is usual; otherwise they stay a split.
    """

    out: str
    downloads: str
    images_url: str
    captions_url: str
    sha256: ArchiveHashes
    restval_to_train: bool
