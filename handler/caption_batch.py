"""Captions all images of a TorchServe batch: encodes them, then searches by set of options."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import torch

from handler.parallel_passes import ParallelPasses
from handler.request_result import ImageOod, ImageResult, record_failure
from handler.requests.caption_request import deadline_passed
from model.artifact import Artifact
from model.options import GenerationOptions

#: Fills in a field of some images; raises without having filled in any.
Work = Callable[[Sequence[ImageResult]], None]


@dataclasses.dataclass(frozen=True)
class BatchTimings:
    """What a batch took in the model.

    Attributes:
        encode: Seconds of encoding.
        generate: Seconds of searching for captions.
    """

    encode: float
    generate: float


def caption_images(
    artifact: Artifact,
    images: Sequence[ImageResult],
    images_per_pass: int,
    deadline: float,
    passes: ParallelPasses,
) -> BatchTimings:
    """Give each image its captions, or the failure that explains why it has none.

    Images with the same options are searched together. A pass that raises is repeated image by
    image, so that only those images fail that raise alone. The rest of the batch then waits for
    the repeated passes.

    Args:
        artifact: The captioner.
        images: With pixels and options; their captions or failures are filled in.
        images_per_pass: Most images in one pass. Up to `passes.threads` passes run at a time, so
            memory grows with the product of the two.
        deadline: On the clock of `time.monotonic`. Images whose pass has not begun by then, or by
            their own deadline, are left out of it and fail with `deadline`.
        passes: Runs the passes in parallel.
    """
    run = functools.partial(_run, images_per_pass=images_per_pass, deadline=deadline, passes=passes)
    begin = time.monotonic()
    run(functools.partial(_encode, artifact), images)
    encoded = time.monotonic()
    for group in _by_options([image for image in images if image.failure is None]):
        run(functools.partial(_search, artifact), group)
    return BatchTimings(encoded - begin, time.monotonic() - encoded)


def _encode(artifact: Artifact, images: Sequence[ImageResult]) -> None:
    """Fill in the features of some images, one pass through CLIP, and how unusual they are."""
    features = artifact.encode(torch.stack([image.pixels for image in images]))
    oods: list[ImageOod | None] = [None] * len(images)
    if artifact.ood_score is not None:
        oods = [ImageOod(*each) for each in torch.stack(artifact.ood(features), 1).tolist()]
    for image, row, ood in zip(images, features, oods, strict=True):
        image.features, image.ood = row, ood


def _search(artifact: Artifact, images: Sequence[ImageResult]) -> None:
    """Fill in the captions of some images with the same options: one pass of the search."""
    features = torch.stack([image.features for image in images if image.features is not None])
    captions = artifact.caption(features, images[0].options)
    for image, found in zip(images, captions, strict=True):
        image.captions = found


def _run(
    work: Work,
    images: Sequence[ImageResult],
    images_per_pass: int,
    deadline: float,
    passes: ParallelPasses,
) -> None:
    """Do one kind of work for all these images, in as many passes as it takes."""
    parts = [images[part] for part in passes.partition(len(images), images_per_pass)]
    passes.map(functools.partial(_one_pass, work, deadline), parts)


def _one_pass(work: Work, deadline: float, images: Sequence[ImageResult]) -> None:
    """Run one pass; if it raises, run each of its images alone to find those at fault."""
    now = time.monotonic()
    with record_failure(*(each for each in images if now >= min(deadline, each.deadline))):
        raise deadline_passed()  # for those whose time is over, perhaps none
    images = [each for each in images if each.failure is None]
    if not images:
        return
    with record_failure(*images):
        work(images)
    if len(images) > 1 and images[0].failure is not None:
        for image in images:
            image.failure = None
            _one_pass(work, deadline, [image])


def _by_options(images: Sequence[ImageResult]) -> list[list[ImageResult]]:
    """The images in groups of the same options, which one search can caption together."""
    groups: dict[GenerationOptions, list[ImageResult]] = {}
    for image in images:
        groups.setdefault(image.options, []).append(image)
    return list(groups.values())
