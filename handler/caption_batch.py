"""Captions a whole TorchServe batch: one pass of the encoder, one search per set of options."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch

from handler.caption_reply import Failure
from handler.caption_request import CaptionRequest
from handler.lanes import Lanes
from model.artifact import Artifact, GeneratedCaption
from model.options import GenerationOptions


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A request whose pictures are decoded.

    Attributes:
        request: What was asked.
        pixels: float32 [N, 3, S, S], one for each of its N pictures.
    """

    request: CaptionRequest
    pixels: torch.Tensor


@dataclasses.dataclass
class Spent:
    """Seconds that a batch took in the model, and what they were spent on."""

    encode: float = 0.0
    generate: float = 0.0
    pictures: int = 0


def caption_batch(
    artifact: Artifact,
    batch: Sequence[Prepared],
    per_pass: int,
    deadline: float,
    spent: Spent,
    lanes: Lanes,
) -> list[list[list[GeneratedCaption]] | Failure]:
    """Caption every picture of every request.

    Args:
        artifact: The captioner.
        batch: Requests with their pixels.
        per_pass: Pictures in one pass through the model at most: what bounds its memory.
        deadline: On the clock `time.monotonic`; what is not captioned by then fails with 504.
        spent: Added to.
        lanes: Where passes run.

    Returns:
        For each request the captions of its pictures, or why there are none.
    """
    options = [choice for prepared in batch for choice in prepared.request.options]
    if not options:
        return []
    begin = time.monotonic()
    pixels = torch.cat([prepared.pixels for prepared in batch])  # [B, 3, S, S]
    features: dict[int, torch.Tensor] = {}  # place -> [D], or [P, D] of patches

    def encode(part: slice) -> None:
        if time.monotonic() < deadline:
            found = artifact.encode(pixels[part])
            features.update(zip(range(part.start, part.stop), found, strict=True))

    lanes.map(encode, lanes.parts(len(pixels), per_pass))
    spent.encode += time.monotonic() - begin
    spent.pictures += len(options)

    begin = time.monotonic()
    captions: dict[int, list[GeneratedCaption]] = {}

    def search(places: list[int]) -> None:
        if time.monotonic() < deadline:
            rows = torch.stack([features[place] for place in places])
            found = artifact.caption(rows, options[places[0]])
            captions.update(zip(places, found, strict=True))

    for group in _same_options(options).values():
        places = [place for place in group if place in features]
        lanes.map(search, [places[part] for part in lanes.parts(len(places), per_pass)])
    spent.generate += time.monotonic() - begin

    results: list[list[list[GeneratedCaption]] | Failure] = []
    first = 0
    for prepared in batch:
        places = list(range(first, first + len(prepared.request.pictures)))
        first += len(places)
        if all(at in captions for at in places):
            results.append([captions[at] for at in places])
        else:
            results.append(too_late())
    return results


def _same_options(options: Sequence[GenerationOptions]) -> dict[GenerationOptions, list[int]]:
    """Which pictures can be searched together."""
    groups: dict[GenerationOptions, list[int]] = {}
    for place, choice in enumerate(options):
        groups.setdefault(choice, []).append(place)
    return groups


def too_late() -> Failure:
    """The failure of a request that the deadline cut off."""
    return Failure(
        504,
        "deadline",
        "the server had too much to do to caption this in time; ask for fewer beams or fewer "
        "tokens, or try again later",
    )
