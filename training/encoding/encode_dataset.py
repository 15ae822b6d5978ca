"""Encode every image of a data set once.

`python -m training.features` writes a feature file (see `training.encoding.feature_file`): of each
image one pooled feature, or with `features.kind=patches` one of each patch, for the patch mapper.
Patches are large: ViT-B/32's of an image are 49 x 768 numbers, 75 kB, where the pooled feature has
2 kB. Images are decoded in worker processes and encoded in batches, `features.shard_batches` of
them to a shard. Killed and started again, it goes on behind the last whole shard and ends with the
same bytes (see `training.encoding.feature_shards`). Broken images fail the command in the end with
a list of all of them; `features.on_broken=skip` leaves them out and says how many.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from model.network.encoder import ImageEncoder
from model.pretrained.encoder_folder import load_encoder
from model.refusal import Refusal
from training.command import arguments, command
from training.config import Features, load_config
from training.data.dataset import CaptionDataset
from training.data.image_decoding import Chosen, Decoded, decode_files
from training.data.tar_picture import PictureFile
from training.encoding.feature_file import EncoderIdentity
from training.encoding.feature_shards import FeatureWriter, ShardRows, writing_features
from training.sources.faults import check_on_broken, listed


class Encoder:
    """An image encoder with its preprocessing and identity.

    Args:
        name: Name or folder of an encoder (see `model.pretrained.encoder_folder`).
        kind: `pooled` for one feature of an image, `patches` for one of each patch.
    """

    def __init__(self, name: str, kind: str = "pooled") -> None:
        model, self.preprocessing = load_encoder(name)
        self.model = model.eval()
        self.identity = EncoderIdentity(
            name=name,
            sha256=vision_sha256(self.model),
            shape=self.model.shape(kind),
            preprocessing=self.preprocessing,
            kind=kind,
        )

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Features [B, *shape] of normalised pixels [B, 3, S, S]."""
        return self.model.encode(pixels, self.identity.kind)


def vision_sha256(model: ImageEncoder) -> str:
    """SHA-256 over names and values of the image tower's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_dataset(settings: Features) -> int:
    """Write the feature file of a data set, going on where a killed run was.

    Returns:
        How many broken images were skipped.

    Raises:
        Refusal: Broken images, when they are not to be skipped, or all are; bad settings; another
            run writes the same file.
    """
    _check(settings)
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(settings.clip, settings.kind)
    ids = np.array(sorted(dataset.files), np.int64)
    size = settings.batch_size * settings.shard_batches
    shards = [ids[start : start + size] for start in range(0, len(ids), size)]
    made_of = [_ingredients(encoder, settings, dataset.files, shard) for shard in shards]
    with writing_features(settings.out, encoder.identity, made_of) as writer:
        missing = [number for number in range(len(shards)) if number not in writer.whole]
        _say_what_is_kept(writer, sum(len(shards[n]) for n in writer.whole), len(ids))
        wanted = np.concatenate([ids[:0], *(shards[number] for number in missing)])
        convert = partial(to_pixels, preprocessing=encoder.preprocessing)
        files = Chosen(dataset.files, wanted)
        workers, side = settings.workers, encoder.preprocessing.size
        decoded = decode_files(files, convert, settings.max_pixels, workers, side)
        with _progress(len(ids), len(ids) - len(wanted)) as count:
            named = zip(map(int, wanted), map(count, decoded), strict=True)
            for number in missing:
                with writer.shard(number) as rows:
                    own = itertools.islice(named, len(shards[number]))
                    _encode(encoder, own, rows, settings.batch_size)
        broken = [line for n in range(len(shards)) for line in writer.whole[n].broken]
        if broken and settings.on_broken == "stop":
            raise Refusal(
                f"{len(broken)} of {len(ids)} images are broken; mend or remove them, or leave "
                "them out with features.on_broken=skip (what is encoded is kept for the next "
                f"run):{listed(broken)}"
            )
        if len(broken) == len(ids):
            raise Refusal(f"none of the {len(ids)} images of {settings.data} can be read")
    return len(broken)


def _check(settings: Features) -> None:
    """Refuse settings that nothing can be encoded with."""
    check_on_broken("features.on_broken", settings.on_broken)
    for name in ("batch_size", "shard_batches"):
        if getattr(settings, name) < 1:
            raise Refusal(f"features.{name} is {getattr(settings, name)}; it must be at least 1")


def _ingredients(
    encoder: Encoder, settings: Features, files: Mapping[int, PictureFile], ids: np.ndarray
) -> dict[str, Any]:
    """All that the bytes of a shard follow from; images are known by size and time of change."""
    identity = encoder.identity.to_dict()
    del identity["name"]
    stamps = hashlib.sha256()
    for image_id in ids.tolist():
        stamps.update(f"{image_id} {files[image_id]} {_stamp(files[image_id])}\n".encode())
    return {
        **identity,
        "batch_size": settings.batch_size,
        "max_pixels": settings.max_pixels,
        "images": stamps.hexdigest(),
    }


def _stamp(file: PictureFile) -> str:
    """What changes when a file does; its rights count too, they may have been mended."""
    try:
        stat = file.stat()
    except OSError as error:
        return str(error)
    return f"{stat.st_size} {stat.st_ctime_ns}"


def _say_what_is_kept(writer: FeatureWriter, kept: int, images: int) -> None:
    if kept:
        print(f"{kept} of {images} images were encoded by an earlier run", file=sys.stderr)
    if writer.changed:
        what = ", ".join(sorted(writer.changed))
        print(f"parts of an earlier run are made anew, as these changed: {what}", file=sys.stderr)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[Decoded], Decoded]]:
    """A bar with images a second; what it yields counts an image and hands it on."""
    columns = (
        *(TextColumn("encoding"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[speed]:.0f} images/s"), TimeRemainingColumn()),
    )
    start, seen = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
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
    """Encode the images of a shard in batches; what is wrong with broken ones is kept with it."""
    waiting: list[tuple[int, Tensor]] = []

    def flush() -> None:
        if waiting:
            pixels = torch.stack([pixels for _, pixels in waiting])
            rows.add([image_id for image_id, _ in waiting], encoder.encode(pixels).numpy())
            waiting.clear()

    for image_id, pixels in decoded:
        if isinstance(pixels, str):
            rows.broken.append(pixels)
        else:
            waiting.append((image_id, pixels))
            if len(waiting) == batch_size:
                flush()
    flush()


def main() -> None:
    """Encode the data set of the settings."""
    settings = load_config(arguments(__doc__).parse_args().overrides).features
    skipped = encode_dataset(settings)
    if skipped:
        print(f"left out {skipped} broken images")


if __name__ == "__main__":
    command(main)
