"""Which requests of a batch are admitted, by what earlier ones took."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from handler.admission import SHARE, Admission
from handler.caption_batch import BatchTimings
from handler.request_result import ImageResult, RequestResult
from handler.requests.caption_request import CaptionRequest, Form
from model.artifact import GeneratedCaption
from model.options import GenerationOptions

ONE, FIVE = GenerationOptions(num_beams=1), GenerationOptions(num_beams=5)


def request(pictures: int, options: GenerationOptions = FIVE) -> RequestResult:
    return RequestResult(request=CaptionRequest([b""] * pictures, [options] * pictures))


def images(count: int, options: GenerationOptions = FIVE) -> list[ImageResult]:
    """Images that were captioned."""
    nothing = torch.zeros(0)
    caption = GeneratedCaption("a boat", -1.0, 3)
    return [
        ImageResult(pixels=nothing, options=options, features=nothing, captions=[caption])
        for _ in range(count)
    ]


@pytest.fixture
def admission() -> Admission:
    """One that has measured 1 s an image with 5 beams: 0.1 to decode, 0.4 to encode, 0.1 a beam."""
    found = Admission(8)
    found.measure_decode(8, 0.8)
    found.measure(images(8), BatchTimings(encode=3.2, generate=4.0))
    return found


def refused(
    admission: Admission, requests: list[RequestResult], seconds: float
) -> list[int | None]:
    """When each request may come again; None for one that is admitted."""
    admission.admit(requests, seconds)
    for each in requests:
        assert each.failure is None or each.failure.code == "overloaded"
    return [each.failure and each.failure.retry_after_seconds for each in requests]


def test_what_fits_is_admitted(admission: Admission):
    assert refused(admission, [request(16)] * 3, 48.1 / SHARE) == [None] * 3


def test_what_does_not_fit_comes_later_in_its_order(admission: Admission):
    requests = [request(16) for _ in range(6)]
    assert refused(admission, requests, 48.1 / SHARE) == [None, None, None, 1, 16, 32]
    failure = requests[4].failure
    assert failure is not None
    assert failure.status == 503
    assert "too much to do to caption 16 pictures in time; send the request again in 16 s" in (
        failure.message
    )


def test_a_small_request_behind_a_large_one_still_fits(admission: Admission):
    requests = [request(16), request(16), request(2), request(1)]
    assert refused(admission, requests, 18.1 / SHARE) == [None, 1, None, 16]


def test_narrow_searches_cost_less(admission: Admission):
    requests = [request(10), request(10), request(10, ONE), request(10, ONE)]
    assert refused(admission, requests, 22.1 / SHARE) == [None, None, 1, 6]
    requests = [request(10, ONE), request(10, ONE), request(10, ONE), request(10)]
    assert refused(admission, requests, 22.1 / SHARE) == [None, None, None, 1]


def test_the_first_is_admitted_even_without_time(admission: Admission):
    unread, described = RequestResult(), RequestResult(request=CaptionRequest([], [], Form.PLAIN))
    requests = [unread, described, request(16), request(1)]
    assert refused(admission, requests, -1.0) == [None, None, None, 1]


def test_nothing_is_refused_before_anything_was_measured():
    assert refused(Admission(8), [request(16)] * 16, 1e-6) == [None] * 16


def test_small_batches_are_not_measured(admission: Admission):
    admission.measure_decode(7, 1e6)
    admission.measure(images(7), BatchTimings(1e6, 1e6))
    admission.measure([], BatchTimings(1e6, 1e6))
    assert refused(admission, [request(16)] * 3, 48.1 / SHARE) == [None] * 3


def test_the_estimate_follows_what_is_measured(admission: Admission):
    for _ in range(30):
        admission.measure_decode(16, 0.16)
        admission.measure(images(16), BatchTimings(0.64, 0.8))  # a tenth of before
    assert refused(admission, [request(16) for _ in range(16)], 26.0 / SHARE) == [None] * 16


def test_an_estimate_that_is_far_too_high_falls_again():
    """Although so little is admitted then that no batch is a full pass."""
    admission = Admission(8)
    admission.measure_decode(8, 800.0)
    admission.measure(images(8), BatchTimings(800.0, 800.0))
    for _ in range(50):
        requests = [request(1) for _ in range(16)]
        admission.admit(requests, 48.0)
        count = sum(each.failure is None for each in requests)
        admission.measure_decode(count, 0.1 * count)
        admission.measure(images(count), BatchTimings(0.4 * count, 0.5 * count))
    assert refused(admission, [request(1) for _ in range(16)], 48.0) == [None] * 16


def test_images_that_failed_are_not_counted_as_captioned(admission: Admission):
    failed = [dataclasses.replace(each, captions=[]) for each in images(8)]
    for _ in range(30):
        admission.measure([*images(8), *failed], BatchTimings(6.4, 8.0))  # twice as slow to search
    assert refused(admission, [request(10), request(10)], 29.0 / SHARE) == [None, 1]
    assert refused(admission, [request(10), request(10)], 31.0 / SHARE) == [None, None]
