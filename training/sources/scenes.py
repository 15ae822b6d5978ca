"""The source `scenes`: drawn scenes with five captions each (see `training.scenes`).

The same seed and count give the same files. The folder holds two files more than every data set
has (see `training.data.dataset`): `truth.json` maps each image id to what is in the picture, and
`instances.json` lists the same things as COCO instances, each with a box in pixels, a category and,
beyond COCO's format, its colour in `attributes`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import writing_dataset
from training.scenes import draw_scene, sample_scene, write_captions
from training.scenes.world.catalogue import THINGS
from training.scenes.world.scene import Scene
from training.sources.settings import Scenes
from training.sources.splits import split_fractions

#: One picture in this many is a PNG, the others are JPEGs.
PNG_EVERY = 8
#: The longer side of a picture over the shorter one, at most.
ASPECT = 1.3
#: Processes that draw.
PROCESSES = 2
#: COCO numbers its categories from one.
CATEGORY_IDS = {thing: number for number, thing in enumerate(THINGS, start=1)}


def prepare(settings: Scenes) -> None:
    """Draw the data set, in place of an older one.

    Raises:
        Refusal: A wrong setting.
    """
    counts = _split_counts(settings)
    with writing_dataset(settings.out) as folder:
        _draw_all(settings, counts, folder)


def _draw_all(settings: Scenes, counts: dict[str, int], folder: Path) -> None:
    """Write pictures and annotations of all splits into an empty folder.

    Args:
        settings: Of this source.
        counts: Pictures of each split.
        folder: Where to write.
    """
    (folder / "images").mkdir()
    jobs = [
        _Job(settings.seed, split, index, (settings.sides[0], settings.sides[1]), folder)
        for split, count in counts.items()
        for index in range(count)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    truth: dict[str, Any] = {}
    splits: dict[str, list[int]] = {split: [] for split in counts}
    with get_context("spawn").Pool(PROCESSES) as pool:
        drawn = pool.imap(_draw, jobs, chunksize=16)
        for number, (job, picture) in enumerate(
            zip(jobs, _progress(drawn, len(jobs)), strict=True), start=1
        ):
            images.append({"id": number, **picture["image"]})
            for caption in picture["captions"]:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "caption": caption}
                )
            for instance in picture["instances"]:
                instances.append({"id": len(instances) + 1, "image_id": number, **instance})
            truth[str(number)] = picture["truth"]
            splits[job.split].append(number)
    recorded = dataclasses.asdict(settings)
    del recorded["out"]  # the files do not depend on where they are
    info = {"description": "ClipCap scenes", "settings": recorded}
    coco = {"info": info, "images": images, "annotations": annotations}
    categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
    boxes = {"info": info, "images": images, "annotations": instances, "categories": categories}
    for name, content in (
        ("captions", coco),
        ("instances", boxes),
        ("split", splits),
        ("truth", truth),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))


@dataclasses.dataclass(frozen=True)
class _Job:
    """One picture to draw."""

    seed: int
    split: str
    index: int
    sides: tuple[int, int]
    folder: Path


def _draw(job: _Job) -> dict[str, Any]:
    """Draw one picture and save it.

    Its random numbers depend on seed, split and index alone, so it makes no difference which
    process draws it.

    Returns:
        `image` (its entry for COCO captions, without the id), `captions`, `instances` (without
        ids) and `truth`.
    """
    rng = random.Random(f"{job.seed}/{job.split}/{job.index}")
    scene = sample_scene(rng, job.split)
    shorter = rng.randint(*job.sides)
    longer = round(shorter * rng.uniform(1.0, ASPECT))
    width, height = (shorter, longer) if rng.random() < 0.3 else (longer, shorter)
    picture = draw_scene(scene, width, height)
    name = f"{job.split}-{job.index:06d}"
    if rng.randrange(PNG_EVERY) == 0:
        name += ".png"
        picture.save(job.folder / "images" / name)
    else:
        name += ".jpg"
        picture.save(job.folder / "images" / name, quality=rng.randint(80, 95))
    sha256 = hashlib.sha256((job.folder / "images" / name).read_bytes()).hexdigest()
    return {
        "image": {"file_name": name, "width": width, "height": height, "sha256": sha256},
        "captions": write_captions(scene),
        "instances": list(_instances(scene, width, height)),
        "truth": scene.to_dict(),
    }


def _instances(scene: Scene, width: int, height: int) -> Iterator[dict[str, Any]]:
    """Each thing of a scene as a COCO instance without ids; `bbox` is [x, y, w, h] in pixels."""
    unit = min(width, height)
    left, top = (width - unit) / 2, (height - unit) / 2
    for group in scene.groups:
        for x, y, w, h in group.boxes:
            box = (left + x * unit, top + y * unit, w * unit, h * unit)
            yield {
                "category_id": CATEGORY_IDS[group.thing],
                "bbox": [round(v, 2) for v in box],
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "attributes": [group.colour],
            }


def _split_counts(settings: Scenes) -> dict[str, int]:
    """Number of pictures of each split; `train` also gets those that rounding down leaves over.

    Raises:
        Refusal: A wrong setting.
    """
    fractions = split_fractions("scenes.fractions", settings.fractions)
    if settings.count < 1:
        raise Refusal(f"scenes.count is {settings.count}; it must be at least 1")
    if len(settings.sides) != 2 or not 64 <= settings.sides[0] <= settings.sides[1] <= 4096:
        raise Refusal(f"scenes.sides is {settings.sides}; give [low, high] from 64 to 4096 pixels")
    counts = {split: int(settings.count * fraction) for split, fraction in fractions.items()}
    counts["train"] += settings.count - sum(counts.values())
    return counts


def _progress(drawn: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    yield from track(drawn, "drawing scenes", total, console=Console(stderr=True))
