"""Decodes the pictures of one request to the pixels that the captioner takes."""

from __future__ import annotations

import time

from handler.caption_request import CaptionRequest, RequestRefusal, deadline_passed
from handler.caption_settings import Settings
from handler.decoding_memory import DecodingMemory
from handler.overlay import PictureView
from handler.request_result import ImageResult
from model.image.decode import open_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.image.refusals import ImageRefusal

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

    Raises:
        ImageRefusal: The only picture cannot be decoded.
        RequestRefusal: One of several pictures cannot be decoded, all of them together have too
            many pixels, or the deadline has passed.
    """
    images: list[ImageResult] = []
    decoded, limit = 0, MAX_DECODED_RATIO * settings.max_pixels
    for index, (picture, options) in enumerate(zip(request.pictures, request.options, strict=True)):
        if time.monotonic() >= deadline:
            raise deadline_passed()
        try:
            opened = open_image(picture, settings.max_pixels, preprocessing.size)
            decoded += opened.pixels
            if decoded > limit:
                raise RequestRefusal(
                    "image_too_large",
                    f"the first {index + 1} pictures of this request have {decoded} pixels; the "
                    f"limit is {limit} for all of them; send fewer at a time, or smaller versions",
                )
            with memory.reserve(opened.memory, deadline):
                upright = opened.decode()
                pixels = to_pixels(upright, preprocessing)
                view = PictureView.of(upright, preprocessing) if request.explanation else None
        except ImageRefusal as refusal:
            if len(request.pictures) == 1:
                raise
            raise RequestRefusal(refusal.code, f"picture [{index}]: {refusal}") from None
        image = ImageResult(pixels, options, opened.warnings, deadline, view=view)
        images.append(image)
    return images
