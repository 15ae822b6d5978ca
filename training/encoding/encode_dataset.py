"""Encodes every image of a data set, shard by shard, into a feature file.

Worker processes decode the images, and this process encodes them with CLIP in batches.
`features.shard_batches` batches make one shard. Of several processes that torchrun starts, each
encodes shards of its own; no picture is read twice. The file has the same bytes as from one.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from model.image.preprocessing import to_pixels
from model.refusal import Refusal
from training.config import Features
from training.data.dataset import CaptionDataset
from training.data.image_decoding import Decoded, SelectedPictures, decode_files
from training.data.tar_picture import PictureFile
from training.device import chosen_device
from training.encoding.encoder import Encoder
from training.encoding.feature_shards import (
    FeatureWriter,
    ShardRows,
    target_and_work,
    writing_features,
)
from training.encoding.ranks import joined
from training.sources.faults import check_on_broken, listed


def encode_dataset(settings: Features) -> int:
    """Write the feature file of a data set; shards that a killed run has completed are kept.

    Returns:
        The number of broken images that were left out.

    Raises:
        Refusal: A wrong setting; images that are broken, while `features.on_broken` is `stop`;
            all images are broken; another run writes the same file.
    """
    _check(settings)
    device = chosen_device(settings.device, "features.device")
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(settings.clip, settings.kind).to(device)
    ids = np.array(sorted(dataset.files), np.int64)
    size = settings.batch_size * settings.shard_batches
    shards = [ids[start : start + size] for start in range(0, len(ids), size)]
    ingredients = partial(_ingredients, encoder, settings, dataset.files)
    with joined() as ranks:
        if ranks.rank > 0:
            missing: list[int] = ranks.from_first([])[ranks.rank :: ranks.count]
            own = [ingredients(shard) if n in missing else {} for n, shard in enumerate(shards)]
            _, work = target_and_work(settings.out)
            writer = FeatureWriter(work, encoder.identity, own, fresh=False)
            _encode_shards(encoder, settings, dataset, writer, shards, missing, quiet=True)
            ranks.wait_for_all()
            return 0
        made_of = [ingredients(shard) for shard in shards]
        with writing_features(settings.out, encoder.identity, made_of) as writer:
            missing = [number for number in range(len(shards)) if number not in writer.complete]
            _print_reused(writer, sum(len(shards[n]) for n in writer.complete), len(ids))
            own_part = ranks.from_first(missing)[:: ranks.count]
            _encode_shards(encoder, settings, dataset, writer, shards, own_part)
            ranks.wait_for_all()
            writer.take_others()
            broken = [line for n in range(len(shards)) for line in writer.complete[n].broken]
            if broken and settings.on_broken == "stop":
                raise Refusal(
                    f"{len(broken)} of {len(ids)} images are broken; repair or remove them, or "
                    "leave them out with features.on_broken=skip (what is encoded is kept for the "
                    f"next run):{listed(broken)}"
                )
            if len(broken) == len(ids):
                raise Refusal(f"none of the {len(ids)} images of {settings.data} can be read")
        return len(broken)


def _encode_shards(
    encoder: Encoder,
    settings: Features,
    dataset: CaptionDataset,
    writer: FeatureWriter,
    shards: Sequence[np.ndarray],
    numbers: Sequence[int],
    quiet: bool = False,
) -> None:
    """Encode and write some shards.

    Args:
        encoder: The encoder.
        settings: See `training.config.Features`.
        dataset: The data set.
        writer: Writes the shards.
        shards: Image ids of all shards.
        numbers: The shards to encode, ascending.
        quiet: Show no progress.
    """
    # An empty array gives the ids their type when there is no shard.
    to_encode = np.concatenate([np.array([], np.int64), *(shards[n] for n in numbers)])
    convert = partial(to_pixels, preprocessing=encoder.preprocessing)
    files = SelectedPictures(dataset.files, to_encode)
    workers, side = settings.workers, encoder.preprocessing.size
    decoded = decode_files(files, convert, settings.max_pixels, workers, side)
    kept = sum(len(shards[n]) for n in writer.complete)
    with _progress(kept + len(to_encode), kept, quiet) as count:
        images = zip(map(int, to_encode), map(count, decoded), strict=True)
        for number in numbers:
            with writer.shard(number) as rows:
                of_shard = itertools.islice(images, len(shards[number]))
                _encode(encoder, of_shard, rows, settings.batch_size)


def _check(settings: Features) -> None:
    """Check the settings that are not checked elsewhere.

    Raises:
        Refusal: A wrong setting.
    """
    check_on_broken("features.on_broken", settings.on_broken)
    for name in ("batch_size", "shard_batches"):
        if getattr(settings, name) < 1:
            raise Refusal(f"features.{name} is {getattr(settings, name)}; it must be at least 1")


def _ingredients(
    encoder: Encoder, settings: Features, files: Mapping[int, PictureFile], ids: np.ndarray
) -> dict[str, Any]:
    """Everything that the bytes of a shard depend on.

    Images are identified by file name, size and time of change: hashing their contents would take
    as long as reading all of them.
    """
    identity = encoder.identity.to_dict()
    del identity["name"]
    stamps = hashlib.sha256()
    for image_id in ids.tolist():
        stamps.update(f"{image_id} {files[image_id]} {_stamp(files[image_id])}\n".encode())
    # Another kind of device sums in another order; records of the CPU have no entry for it.
    device = {} if encoder.device.type == "cpu" else {"device": encoder.device.type}
    return {
        **identity,
        **device,
        "batch_size": settings.batch_size,
        "max_pixels": settings.max_pixels,
        "images": stamps.hexdigest(),
    }


def _stamp(file: PictureFile) -> str:
    """A text that changes when a file changes, or its access rights: they may make it readable."""
    try:
        stat = file.stat()
    except OSError as error:
        return str(error)
    return f"{stat.st_size} {stat.st_ctime_ns}"


def _print_reused(writer: FeatureWriter, kept: int, images: int) -> None:
    """Print how many images an earlier run has encoded, and why shards of it are not used."""
    if kept:
        print(f"{kept} of {images} images were encoded by an earlier run", file=sys.stderr)
    if writer.changed:
        what = ", ".join(sorted(writer.changed))
        print(
            f"parts of an earlier run are encoded again, as these changed: {what}", file=sys.stderr
        )


@contextmanager
def _progress(total: int, done: int, quiet: bool) -> Iterator[Callable[[Decoded], Decoded]]:
    """A progress bar with the speed in images a second.

    Args:
        total: Number of images.
        done: Number of images that an earlier run has encoded.
        quiet: Show nothing.

    Returns:
        A context manager, which gives a function that counts an image and returns it unchanged.
    """
    columns = (
        *(TextColumn("encoding"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[speed]:.0f} images/s"), TimeRemainingColumn()),
    )
    start, seen = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True, quiet=quiet)) as progress:
        task = progress.add_task("", total=total, completed=done, speed=0.0)

        def count(decoded: Decoded) -> Decoded:
            nonlocal seen
            seen += 1
            progress.update(task, advance=1, speed=seen / (time.monotonic() - start))
            return decoded

        yield count


def _encode(
    encoder: Encoder, decoded: Iterable[tuple[int, Decoded]], rows: ShardRows, batch_size: int
) -> None:
    """Encode the images of a shard in batches.

    Args:
        encoder: The encoder.
        decoded: Id and pixels of each image, or id and fault.
        rows: Of the shard; features, and faults of broken images, are added.
        batch_size: Images of a batch; the last one may have fewer.
    """
    batch: list[tuple[int, Tensor]] = []

    def flush() -> None:
        if batch:
            pixels = torch.stack([pixels for _, pixels in batch])
            rows.add([image_id for image_id, _ in batch], encoder.encode(pixels).numpy())
            batch.clear()

    for image_id, pixels in decoded:
        if isinstance(pixels, str):
            rows.broken.append(pixels)
        else:
            batch.append((image_id, pixels))
            if len(batch) == batch_size:
                flush()
    flush()
