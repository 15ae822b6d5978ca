"""What a client asks, whatever form it came in: pictures, each with its options."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from model.options import GenerationOptions
from model.refusal import Refusal

#: How features are written: as a list of numbers, or as base64 of float32, little-endian.
FEATURE_FORMATS = ("list", "base64")
#: What the reply to an explanation may be: JSON with numbers, or a picture to look at.
EXPLANATION_FORMATS = ("json", "png")
#: Part of every message to a client that sent no picture.
HOW_TO_SEND = (
    "send it with curl -T photo.jpg or -F data=@photo.jpg, "
    'or as JSON {"image": "<base64>", "options": {...}}'
)


class RequestRefusal(Refusal):
    """A request that cannot be answered as it is.

    Attributes:
        code: A key of `handler.replies.failure.STATUSES`, such as `bad_json`.
        retry_after_seconds: When the same request may be sent again; None if that is of no use.
    """

    def __init__(self, code: str, message: str, retry_after_seconds: int | None = None) -> None:
        """Build a refusal from a code and a message written for the user."""
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


def deadline_passed() -> RequestRefusal:
    """The refusal of a request that was not captioned before its deadline, or its batch's."""
    return RequestRefusal(
        "deadline",
        "the server had too much to do to caption this in time; ask for fewer beams or fewer "
        "tokens, or try again later",
    )


def overloaded(pictures: int, seconds: int) -> RequestRefusal:
    """The refusal of a request that its batch has no time for.

    Args:
        pictures: Number of its pictures.
        seconds: When it may be sent again.
    """
    count = "1 picture" if pictures == 1 else f"{pictures} pictures"
    return RequestRefusal(
        "overloaded",
        f"the server has too much to do to caption {count} in time; send the request again in "
        f"{seconds} s, or fewer pictures at a time",
        seconds,
    )


class Form(enum.Enum):
    """The form of a request; its reply has the same form."""

    PLAIN = "plain"
    KSERVE_V1 = "v1"
    KSERVE_V2 = "v2"
    SEVERAL = "several"
    DESCRIPTION = "description"


@dataclasses.dataclass(frozen=True)
class ExplanationRequest:
    """How the caption of a picture is to be explained; see `model.explanation`.

    Attributes:
        grid: Cells on a side.
        format: One of `EXPLANATION_FORMATS`.
    """

    grid: int
    format: str


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a request asks for beside captions.

    Attributes:
        features: One of `FEATURE_FORMATS`; None for no features.
        unit_features: Whether each feature is divided by its L2 norm.
        timeout: Seconds after which the reply is of no use; None for no limit of its own.
        ood: Whether the reply says how unusual each picture is.
    """

    features: str | None = None
    unit_features: bool = False
    timeout: float | None = None
    ood: bool = False


@dataclasses.dataclass(frozen=True)
class CaptionRequest:
    """One request: pictures, and how to caption each of them.

    Attributes:
        pictures: The bytes of each picture file: exactly one in the plain form, none in a request
            for a description, at least one in the others. Of several pictures, one that cannot be
            read is the refusal that tells why.
        options: The options of each picture.
        form: The form the request came in.
        id: The id a KServe v2 client gave.
        explanation: How to explain the caption; None for none. Only one picture in the plain form
            has one.
        extras: What it asks for beside captions.
    """

    pictures: Sequence[bytes | bytearray | RequestRefusal]
    options: Sequence[GenerationOptions]
    form: Form = Form.PLAIN
    id: str | None = None
    explanation: ExplanationRequest | None = None
    extras: Extras = Extras()
