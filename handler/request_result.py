"""What has become of each request of a batch: the one type that the handler's steps pass on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import torch

from handler.replies.failure import Failure, failure_of
from handler.replies.overlay import PictureView
from handler.requests.caption_request import CaptionRequest, Form
from model.artifact import GeneratedCaption
from model.explanation import CaptionExplanation
from model.options import GenerationOptions


@dataclasses.dataclass(frozen=True)
class ImageOod:
    """How unusual an image is; see `model.ood`.

    Attributes:
        score: About 1 for a usual image, more for others.
        p_value: Share of validation images that are at least as unusual, above 0 and at most 1.
    """

    score: float
    p_value: float

    def fields(self) -> dict[str, float]:
        """Those of a reply."""
        return {"score": round(self.score, 6), "p_value": round(self.p_value, 6)}


@dataclasses.dataclass
class ImageResult:
    """One image of a request, from its pixels to its captions.

    Attributes:
        pixels: float32 [3, S, S], normalised.
        options: How to caption it.
        warnings: What is wrong with its file without making it unusable, such as `truncated`.
        deadline: When its caption is of no use any more, on the clock of `time.monotonic`.
        features: float32 [D] or [P, D], once it is encoded.
        ood: How unusual it is, once it is encoded, if the captioner can say so.
        captions: Best first, once it is captioned; empty before.
        failure: Why it has no captions, if a step failed; later steps leave it out.
        view: The picture to look at, if its caption is to be explained.
        explanation: Of its best caption, once there is one.
    """

    pixels: torch.Tensor
    options: GenerationOptions
    warnings: list[str] = dataclasses.field(default_factory=list)
    deadline: float = math.inf
    features: torch.Tensor | None = None
    ood: ImageOod | None = None
    captions: list[GeneratedCaption] = dataclasses.field(default_factory=list)
    failure: Failure | None = None
    view: PictureView | None = None
    explanation: CaptionExplanation | None = None


@dataclasses.dataclass
class RequestResult:
    """One request of a batch, from the row that TorchServe gives to its reply.

    Attributes:
        form: The form it came in, once that is known.
        request: What was asked; None if it could not be read.
        images: Its images, once they are decoded.
        failure: Why it gets no captions, if a step failed; later steps leave it out.
        deadline: When its client stops waiting, on the clock of `time.monotonic`.
    """

    form: Form = Form.PLAIN
    request: CaptionRequest | None = None
    images: list[ImageResult] = dataclasses.field(default_factory=list)
    failure: Failure | None = None
    deadline: float = math.inf

    def take_failure(self) -> None:
        """Let the request fail where each of its images has: with the failure of the first one."""
        if self.failure is None and self.images and all(each.failure for each in self.images):
            failure = self.images[0].failure
            if failure is not None and len(self.images) > 1:
                failure = dataclasses.replace(failure, message=f"picture [0]: {failure.message}")
            self.failure = failure


@contextlib.contextmanager
def record_failure(*results: RequestResult | ImageResult) -> Iterator[None]:
    """Turn an exception of the `with` block into the failure of these results.

    TorchServe answers 503 to the whole batch when a handler raises. So whatever a block raises
    for one request, a MemoryError included, has to stay with that request.
    """
    try:
        yield
    except Exception as error:
        failure = failure_of(error)
        for result in results:
            result.failure = failure
