"""Explains the captions of a TorchServe batch, and writes explanations as JSON.

Explanations come after all captions of the batch, one request after the other. Each is many passes
through the model, so all of them together have a limit in seconds of their own: the other requests
of the batch, whose replies TorchServe sends together with theirs, wait no longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from handler.parallel_passes import ParallelPasses
from handler.replies.overlay import contact_sheet
from handler.request_result import ImageResult, RequestResult, record_failure
from handler.requests.caption_request import EXPLANATION_FORMATS, RequestRefusal, deadline_passed
from model.artifact import Artifact
from model.explanation import (
    DEFAULT_GRID,
    HIGHEST_GRID,
    LOWEST_GRID,
    explain,
    image_count,
)


class BatchExplanations:
    """Explains captions of one batch, until their time is over.

    Args:
        artifact: The captioner.
        images_per_pass: Most images in one pass.
        seconds: For all explanations together; no pass begins later.
        deadline: That of the batch, on the clock of `time.monotonic`.
        passes: Runs the passes in parallel.
    """

    def __init__(
        self,
        artifact: Artifact,
        images_per_pass: int,
        seconds: float,
        deadline: float,
        passes: ParallelPasses,
    ) -> None:
        self._artifact = artifact
        self._images_per_pass = images_per_pass
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._deadline = deadline
        self._passes = passes
        self._done: list[int] = []  # images of each pass

    @property
    def images(self) -> int:
        """Images that were encoded and scored so far."""
        return sum(self._done)

    def explain(self, results: Sequence[RequestResult]) -> None:
        """Fill in the explanations that requests ask for, or their failures.

        Args:
            results: With captioned images, unless they failed.
        """
        for result in results:
            if result.failure or result.request is None or result.request.explanation is None:
                continue
            with record_failure(result):
                [image] = result.images
                self._explain(image, result.request.explanation.grid)

    def _explain(self, image: ImageResult, grid: int) -> None:
        slices = self._passes.partition(image_count(grid), self._images_per_pass)
        parts = [range(part.start, part.stop) for part in slices]

        def run(work: Callable[[range], Tensor], parts: Sequence[range]) -> list[Tensor]:
            def one_pass(part: range) -> Tensor:
                self._check(image.deadline)
                scores = work(part)
                self._done.append(len(part))
                return scores

            return self._passes.map(one_pass, parts)

        image.explanation = explain(
            self._artifact, image.pixels, image.captions[0], grid, parts, run
        )

    def _check(self, deadline: float) -> None:
        """Refuse to begin another pass when there is no time for it."""
        now = time.monotonic()
        if now >= min(deadline, self._deadline):
            raise deadline_passed()
        if now >= self._end:
            raise _took_too_long(self._seconds)


def _took_too_long(seconds: float) -> RequestRefusal:
    return RequestRefusal(
        "deadline",
        f"the explanations of a batch may take {seconds:g} s together, and this one was not ready "
        "by then; ask for a smaller grid, or try again later",
    )


def explanation_limits() -> dict[str, Any]:
    """What a request may ask of an explanation, for the captioner's description."""
    return {
        "grid": {"default": DEFAULT_GRID, "from": LOWEST_GRID, "to": HIGHEST_GRID},
        "format": list(EXPLANATION_FORMATS),
    }


def explanation_png(image: ImageResult) -> bytes:
    """The explanation of an image's caption as a PNG file; see `handler.replies.overlay`."""
    assert image.view is not None
    assert image.explanation is not None
    return contact_sheet(image.view, image.captions[0].text, image.explanation)


def explanation_fields(image: ImageResult) -> dict[str, Any] | None:
    """The explanation of an image's caption as JSON fields; None if there is none."""
    if image.view is None or image.explanation is None:
        return None
    explanation, crop = image.explanation, [round(part, 6) for part in image.view.crop]
    side = explanation.cells.shape[-1]
    return {
        "grid": [side, side],
        "crop": dict(zip(("x", "y", "width", "height"), crop, strict=True)),
        "passes": explanation.passes,
        "words": [
            {
                "word": word.text,
                "from": word.begin,
                "to": word.end,
                "log_prob": round(log_prob, 4),
                "log_prob_blank": round(blank, 4),
                "cells": [[round(value, 4) for value in row] for row in cells],
            }
            for word, log_prob, blank, cells in zip(
                explanation.words,
                explanation.log_probs.tolist(),
                explanation.blank.tolist(),
                explanation.cells.tolist(),
                strict=True,
            )
        ],
    }
