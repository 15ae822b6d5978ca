"""The source `webdataset`: tar files (shards), for data sets too large for a folder of files.

The shards are not copied. The data set holds captions, splits, and for each picture its tar file
and byte range; later stages read pictures from the tar files (see `training.data.tar_picture`).
The shards are read one after the other (see `training.sources.tar_samples`). Memory grows with the
samples of one shard, and by about 150 bytes for each picture of all shards, to find pictures that
are there twice. Every picture is decoded, and all faults are listed, before the data set is put in
place.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import Picture, TarPosition, check_target, write_index, writing_dataset
from training.data.image_decoding import examine_files
from training.data.tar_picture import TarPicture
from training.sources.captions.caption_text import print_changes
from training.sources.captions.entry import Reading
from training.sources.faults import check_on_broken, counted, listed
from training.sources.settings import ShardSplits, WebDataset
from training.sources.splits import DrawnSplits, KnownPictures, print_moves, split_fractions
from training.sources.tar_samples import read_samples

#: The most tar files that a pattern such as {00000..99999} may stand for.
MAX_SHARDS = 1_000_000


def prepare(settings: WebDataset) -> None:
    """Check the shards and write their data set, in place of an older one.

    Raises:
        Refusal: A wrong setting, or faults in the shards.
    """
    check_on_broken("webdataset.on_broken", settings.on_broken)
    fractions = split_fractions("webdataset.fractions", settings.fractions)
    check_target(settings.out)
    tars = find_shards(settings.shards)
    splits = shard_splits(tars, settings.splits)
    print(f"recognised WebDataset: {len(tars)} shards{_told(splits)}")
    reading = Reading()
    faults = reading.faults
    drawn, known = DrawnSplits(fractions), KnownPictures()
    with writing_dataset(settings.out) as folder:
        pictures = _pictures(tars, splits, settings, drawn, known, reading)
        counts = write_index(
            folder,
            f"{len(tars)} tar shards",
            pictures,
            tars,
            lambda: {} if splits else drawn.moves(known.repeated),
        )
        if faults and settings.on_broken == "stop":
            raise Refusal(
                f"{counted(faults)} in {len(tars)} shards; correct them, or leave out what they "
                f"name with webdataset.on_broken=skip:{listed(faults)}"
            )
        moves = {} if splits else drawn.moves(known.repeated)
        if not splits and set(drawn.empty()) - set(moves.values()):
            raise Refusal(
                f"no picture of {settings.shards} came to {' and '.join(drawn.empty())} by "
                f"webdataset.fractions {fractions}, and there are too few to give each split one; "
                f"add pictures, or change webdataset.fractions{listed(faults)}"
            )
    if faults:
        print(f"left out for {counted(faults)}:{listed(faults)}", file=sys.stderr)
    if left_out := [f"{count} {what}" for what, count in reading.left_out.items()]:
        print(f"left out, and no fault:{listed(left_out)}", file=sys.stderr)
    print_changes(reading.changes)
    print_moves({f"image {image_id}": split for image_id, split in moves.items()})
    print(f"{settings.out}: {counts}")


def shard_splits(tars: Sequence[Path], settings: ShardSplits) -> dict[Path, str]:
    """The split of each tar file by the setting `webdataset.splits`; empty if that is not set.

    Raises:
        Refusal: A tar file is in no split or in two, or a pattern has no tar file.
    """
    patterns = {split: one for split, one in dataclasses.asdict(settings).items() if one}
    found: dict[Path, list[str]] = {tar: [] for tar in tars if patterns}
    for split, pattern in patterns.items():
        own = [tar for tar in tars if any(fnmatch(tar.name, one) for one in _expanded(pattern))]
        if not own:
            raise Refusal(
                f"webdataset.splits: no tar file of {len(tars)} matches {split}: {pattern}"
            )
        for tar in own:
            found[tar].append(split)
    if wrong := [tar.name for tar, splits in found.items() if len(set(splits)) != 1]:
        raise Refusal(
            f"webdataset.splits: {len(wrong)} tar files match no pattern or those of two splits; "
            f"each must be in one split:{listed(wrong)}"
        )
    return {tar: splits[0] for tar, splits in found.items()}


def _told(splits: Mapping[Path, str]) -> str:
    """How many shards each split has, for the first line that is printed."""
    counts = Counter(splits.values())
    return f"; {', '.join(f'{split} {count}' for split, count in counts.items())}" if counts else ""


def find_shards(pattern: str | None) -> list[Path]:
    """The tar files of the setting `webdataset.shards`, with links resolved.

    Raises:
        Refusal: The setting is missing, or a file is.
    """
    if pattern is None:
        raise Refusal(
            "webdataset.shards is not set; give a folder of .tar files, or names such as "
            "shards/{00000..00009}.tar"
        )
    if Path(pattern).is_dir():
        files = sorted(Path(pattern).glob("*.tar"))
    else:
        files = [Path(name) for name in _expanded(pattern)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise Refusal(
            f"webdataset.shards is {pattern}: {len(missing) or 'no'} of {len(files)} tar files "
            f"{'are missing' if missing else 'there'}{listed(missing)}"
        )
    return [file.resolve() for file in files]


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for.

    Args:
        pattern: Each {00000..00009} in it stands for every number of the range, written with at
            least as many digits as the first number.
    """
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not braces:
        yield pattern
        return
    first, last = braces.groups()
    if int(last) - int(first) >= MAX_SHARDS:
        raise Refusal(
            f"webdataset.shards is {pattern}: {int(last) - int(first) + 1} tar files; the limit is "
            f"{MAX_SHARDS}"
        )
    for number in range(int(first), int(last) + 1):
        name = f"{pattern[: braces.start()]}{number:0{len(first)}d}{pattern[braces.end() :]}"
        yield from _expanded(name)


def _pictures(
    tars: Sequence[Path],
    splits: Mapping[Path, str],
    settings: WebDataset,
    drawn: DrawnSplits,
    known: KnownPictures,
    reading: Reading,
) -> Iterator[Picture]:
    """The pictures that have no fault, shard by shard.

    The split of a picture depends on its shard's name and its key alone, so shards that are added
    later do not change it.

    Args:
        tars: The shards.
        splits: Split of each shard; empty draws the split of each picture.
        settings: Of this source.
        drawn: The pictures whose split is drawn are added.
        known: The pictures are added.
        reading: Faults and counts are added.
    """
    image_id = 0
    for number, tar in enumerate(track(tars, "checking shards", console=Console(stderr=True))):
        samples = read_samples(tar, reading, settings.picture)
        where, size = f"a picture of {tar.name}", tar.stat().st_size
        files = [TarPicture(tar, size, one.name, one.offset, one.size) for one in samples]
        results = examine_files(files, settings.max_pixels, settings.workers)
        for file, sample, found in zip(files, samples, results, strict=True):
            image_id += 1
            if found.fault:
                reading.faults.append(found.fault)
                continue
            key = f"{settings.seed}/{tar.name}/{sample.key}"
            split = splits.get(tar) or drawn.split(key)
            try:
                known.check(found.sha256, split, where)
            except ValueError as error:
                reading.faults.append(f"{file} {error}")
                continue
            if tar not in splits:
                drawn.add(key, image_id, found.sha256)
            position = TarPosition(number, sample.offset, sample.size)
            yield Picture(image_id, sample.name, sample.captions, split, position, found.sha256)
