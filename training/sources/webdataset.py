"""The source that is a WebDataset: tar shards, for sets too large for a folder of files.

The shards are read one after the other (see `training.sources.tar_samples`) and stay where they
are: the data set holds captions, splits, and where in which tar file each picture lies. Every later
stage reads pictures from there; training on features needs none. All pictures are decoded and all
faults listed before the data set is put in place. Memory grows with the samples of one shard.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import Picture, TarPosition, check_target, write_index, writing_dataset
from training.data.image_decoding import undecodable
from training.data.tar_picture import TarPicture
from training.sources.faults import check_on_broken, counted, listed
from training.sources.settings import WebDataset
from training.sources.splits import check_shares, drawn_split
from training.sources.tar_samples import read_samples

#: Names that {00000..99999} may stand for.
MAX_SHARDS = 1_000_000


def prepare(settings: WebDataset) -> None:
    """Check the shards and make their data set in place of an older one.

    Raises:
        Refusal: Settings that make no data set, or faults in the shards.
    """
    check_on_broken("webdataset.on_broken", settings.on_broken)
    check_shares("webdataset.fractions", dataclasses.asdict(settings.fractions))
    check_target(settings.out)
    tars = _shards(settings.shards)
    faults: list[str] = []
    given: set[str] = set()
    with writing_dataset(settings.out) as folder:
        pictures = _pictures(tars, settings, faults, given)
        counts = write_index(folder, f"{len(tars)} tar shards", pictures, tars)
        if faults and settings.on_broken == "stop":
            raise Refusal(
                f"{counted(faults)} in {len(tars)} shards; mend them, or leave out what they "
                f"name with webdataset.on_broken=skip:{listed(faults)}"
            )
        shares = dataclasses.asdict(settings.fractions)
        empty = [split for split, share in shares.items() if share and split not in given]
        if empty:
            raise Refusal(
                f"no picture of {settings.shards} came to {' and '.join(empty)} by "
                f"webdataset.fractions {shares}; add pictures, or change webdataset.seed or "
                f"webdataset.fractions{listed(faults)}"
            )
    if faults:
        print(f"left out for {counted(faults)}:{listed(faults)}", file=sys.stderr)
    print(f"{settings.out}: {counts}")


def _shards(pattern: str | None) -> list[Path]:
    """The tar files, links resolved."""
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
    """Names with each {00000..00009} counted through, with as many digits as the first number."""
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
    tars: Sequence[Path], settings: WebDataset, faults: list[str], given: set[str]
) -> Iterator[Picture]:
    """The sound pictures, shard by shard; their splits are noted in `given`.

    A split follows from shard and key alone: shards that join later move no picture.
    """
    shares = dataclasses.asdict(settings.fractions)
    image_id = 0
    for number, tar in enumerate(track(tars, "checking shards", console=Console(stderr=True))):
        samples = read_samples(tar, faults)
        size = tar.stat().st_size
        files = [TarPicture(tar, size, one.name, one.offset, one.size) for one in samples]
        found = undecodable(files, settings.max_pixels, settings.workers)
        for sample, fault in zip(samples, found, strict=True):
            image_id += 1
            if fault:
                faults.append(fault)
                continue
            split = drawn_split(f"{settings.seed}/{tar.name}/{sample.key}", shares)
            given.add(split)
            place = TarPosition(number, sample.offset, sample.size)
            yield Picture(image_id, sample.name, sample.captions, split, place)
