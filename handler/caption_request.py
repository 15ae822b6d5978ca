"""What a client asks, whatever form it came in: pictures, each with its options."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from model.options import GenerationOptions
from model.refusal import Refusal

#: Said wherever a request holds no picture.
HOW_TO_SEND = (
    "send it with curl -T photo.jpg or -F data=@photo.jpg, "
    'or as JSON {"image": "<base64>", "options": {...}}'
)


class RequestRefusal(Refusal):
    """A request that does not say what to caption.

    Attributes:
        status: The HTTP status that says the same.
        code: A word for programs, such as `bad_json`.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        """Build a refusal from a code and a message written for the user."""
        super().__init__(message)
        self.status = status
        self.code = code


class Form(enum.Enum):
    """The form of a request, which its reply takes too."""

    PLAIN = "plain"
    KSERVE_V1 = "v1"
    KSERVE_V2 = "v2"


@dataclasses.dataclass(frozen=True)
class CaptionRequest:
    """One request: pictures, each with the options it is to be captioned with.

    Attributes:
        pictures: The bytes of each picture file, at least one; exactly one in the plain form.
        options: For each picture how to caption it.
        form: The form the request came in.
        id: The id a KServe v2 client gave.
    """

    pictures: Sequence[bytes | bytearray]
    options: Sequence[GenerationOptions]
    form: Form = Form.PLAIN
    id: str | None = None
