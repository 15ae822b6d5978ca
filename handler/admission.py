"""Decides which requests of a batch are captioned, and which are refused because time is short.

A batch may hold 16 requests of 16 pictures. All its images are encoded before the first of them is
searched, and a request fails if one of its images does. So a batch that is too large would work
until its deadline and then answer hardly any request. Requests for which there is no time are
therefore refused before their pictures are decoded. How long a picture takes is the average of
what earlier ones took.

TorchServe sends the replies of a batch together. So a refusal arrives when the worker is ready for
the next batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from handler.caption_batch import BatchTimings
from handler.request_result import ImageResult, RequestResult, record_failure
from handler.requests.caption_request import CaptionRequest, overloaded
from model.explanation import image_count

#: Part of the time until the deadline that is given away; the rest allows for estimates that are
#: too low.
SHARE = 0.8
#: Images after which a new measurement has half of the weight of an average.
MEMORY = 8


class Admission:
    """Estimates what requests cost and admits those that a batch has time for.

    Args:
        images_per_pass: Images of a full pass. Smaller batches are not measured, as an image takes
            several times as long there, unless requests were refused: estimates that are too high
            would never fall otherwise.
        explanation_seconds: Seconds that the explanations of a batch may take together.
    """

    def __init__(self, images_per_pass: int, explanation_seconds: float = math.inf) -> None:
        self._images_per_pass = images_per_pass
        self._explanation_seconds = explanation_seconds
        self._refused = False  # any request of the last batch
        self._decode = self._encode = self._search = 0.0  # seconds; the search per beam
        self._explain = 0.0  # seconds per image that is encoded and scored

    def admit(self, results: Sequence[RequestResult], seconds: float) -> None:
        """Record the failure `overloaded` for the requests of a batch that there is no time for.

        Requests are admitted in their order. One that does not fit is refused, and smaller ones
        behind it may still fit. The first is always admitted, so that no estimate, however wrong,
        can close the server.

        Args:
            results: With requests that are read and not decoded.
            seconds: Until the deadline of the batch.
        """
        admitted = waiting = explained = 0.0  # seconds
        self._refused = False
        for result in results:
            if result.failure or result.request is None or not result.request.pictures:
                continue
            explanation = self._explanation_seconds_of(result.request)
            cost = self._seconds_of(result.request) + explanation
            is_late = admitted and admitted + cost > SHARE * seconds
            explanations = explained + explanation
            if explained and explanation and explanations > SHARE * self._explanation_seconds:
                is_late = True
            if is_late:
                with record_failure(result):
                    # Those that were refused before it come first the next time too.
                    raise overloaded(len(result.request.pictures), max(1, math.ceil(waiting)))
                waiting += cost
                self._refused = True
            else:
                admitted += cost
                explained += explanation

    def measure_decode(self, images: int, seconds: float) -> None:
        """Take account of what the decoding of a batch took.

        Args:
            images: That were decoded.
            seconds: All together.
        """
        if self._counts(images):
            self._decode = _average(self._decode, seconds / images, images)

    def measure(self, images: Sequence[ImageResult], timings: BatchTimings) -> None:
        """Take account of what a batch took in the model.

        Args:
            images: All its images, captioned unless they failed.
            timings: What they took together.
        """
        encoded = sum(image.features is not None for image in images)
        captioned = [image for image in images if image.captions]
        if self._counts(encoded):
            self._encode = _average(self._encode, timings.encode / encoded, encoded)
        if self._counts(len(captioned)):
            beams = sum(image.options.num_beams for image in captioned)
            self._search = _average(self._search, timings.generate / beams, len(captioned))

    def measure_explanations(self, images: int, seconds: float) -> None:
        """Take account of what the explanations of a batch took.

        Args:
            images: That were encoded and scored.
            seconds: All together.
        """
        self._explain = _average(self._explain, seconds / images, images)

    def _counts(self, images: int) -> bool:
        return images >= (1 if self._refused else self._images_per_pass)

    def _seconds_of(self, request: CaptionRequest) -> float:
        beams = sum(options.num_beams for options in request.options)
        return len(request.pictures) * (self._decode + self._encode) + beams * self._search

    def _explanation_seconds_of(self, request: CaptionRequest) -> float:
        if request.explanation is None:
            return 0.0
        # Before the first explanation nothing is known of them but what encoding takes.
        each = self._explain or self._encode + self._search
        return min(image_count(request.explanation.grid) * each, self._explanation_seconds)


def _average(old: float, new: float, images: int) -> float:
    """The moving average, in which a measurement weighs more the more images it comes from."""
    if not old:
        return new
    weight = images / (images + MEMORY)
    return old + weight * (new - old)
