"""Decodes the pictures of one request to the pixels that the captioner takes."""

from __future__ import annotations

import time

import torch

from handler.caption_settings import Settings
from handler.decoding_memory import DecodingMemory
from handler.replies.overlay import PictureView
from handler.request_result import ImageResult, record_failure
from handler.requests.caption_request import CaptionRequest, RequestRefusal, deadline_passed
from model.image.decode import open_image
from model.image.preprocessing import Preprocessing, to_pixels

#: Those of a picture that is not decoded.
NO_PIXELS = torch.empty(0)
#: Limit on the decoded pixels of all pictures of a request, as a multiple of `max_pixels`. A large
#: JPEG counts with the fraction of its size that it is decoded at.
MAX_DECODED_RATIO = 2


def decode_images(
    request: CaptionRequest,
    preprocessing: Preprocessing,
    settings: Settings,
    deadline: float,
    memory: DecodingMemory,
) -> list[ImageResult]:
    """Decode and preprocess the pictures of a request, in their order.

    Args:
        request: The bytes of its pictures, with their options.
        preprocessing: What the encoder expects.
        settings: `max_pixels` is the limit of one picture.
        deadline: On the clock of `time.monotonic`; no picture is decoded after it, and it becomes
            that of the images.
        memory: Bounds what all requests of a batch decode at a time.

    Returns:
        An image for each picture. One has a failure if its picture cannot be decoded, if the
        pictures up to it have too many pixels together, or if the deadline has passed.
    """
    images: list[ImageResult] = []
    decoded, limit = 0, MAX_DECODED_RATIO * settings.max_pixels
    for index, (picture, options) in enumerate(zip(request.pictures, request.options, strict=True)):
        image = ImageResult(NO_PIXELS, options, deadline=deadline)
        images.append(image)
        with record_failure(image):
            if isinstance(picture, RequestRefusal):
                raise picture
            if time.monotonic() >= deadline:
                raise deadline_passed()
            opened = open_image(picture, settings.max_pixels, preprocessing.size)
            if decoded + opened.pixels > limit:
                raise RequestRefusal(
                    "image_too_large",
                    f"the first {index + 1} pictures of this request have "
                    f"{decoded + opened.pixels} pixels; the limit is {limit} for all of them; send "
                    "fewer at a time, or smaller versions",
                )
            decoded += opened.pixels
            with memory.reserve(opened.memory, deadline):
                upright = opened.decode()
                image.pixels = to_pixels(upright, preprocessing)
                if request.explanation:
                    image.view = PictureView.of(upright, preprocessing)
            image.warnings = opened.warnings
    return images
