"""The section `handler.capture` of `model-config.yaml`: what is kept, where and how long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from model.refusal import Refusal

#: Smallest limit of the folder, so that a file of rows fits several times.
LEAST_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True)
class CaptureSettings:
    """What is captured, where it is kept, and how long.

    Attributes:
        folder: Where the files are written; several workers may share it.
        sample: Share of the captioned pictures, above 0 and at most 1.
        max_bytes: Most bytes of all files; the oldest are removed.
        days: Days after which a file is removed.
        rows_a_file: Most rows of a file. A worker holds that many in memory, and as many again
            that wait (256 at least).
        seconds_a_file: Seconds after which a file is written although it has fewer rows.
        images: Whether the pictures are kept too, in files of their own.
        image_days: Days after which those are removed; needed for `images`.
    """

    folder: str
    sample: float = 1.0
    max_bytes: int = 1_000_000_000
    days: float = 30.0
    rows_a_file: int = 1000
    seconds_a_file: float = 60.0
    images: bool = False
    image_days: float | None = None


def read_capture(section: Any) -> CaptureSettings | None:
    """Check the section; None where there is none, so that nothing is captured.

    Raises:
        Refusal: A key is unknown or missing, or a value cannot be used.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise _refusal(f"is {section!r}; it must have keys and values, folder among them")
    types = get_type_hints(CaptureSettings)
    for name in section:
        if name not in types:
            raise _refusal(f".{name} does not exist; known: {', '.join(types)}")
    folder = section.get("folder")
    if not isinstance(folder, str) or not folder:
        raise _refusal(f".folder is {folder!r}; it must be the path of a folder")
    for name in ("sample", "days", "seconds_a_file", "image_days"):
        value: Any = section.get(name)
        if name not in section or (name == "image_days" and value is None):
            continue
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise _refusal(f".{name} is {value!r}; it must be a number above 0")
    if section.get("sample", 1) > 1:
        raise _refusal(f".sample is {section['sample']!r}; it must be a share, at most 1")
    for name, least in {"max_bytes": LEAST_BYTES, "rows_a_file": 1}.items():
        value = section.get(name, least)
        if type(value) is not int or value < least:
            raise _refusal(f".{name} is {value!r}; it must be a whole number, {least} or more")
    images = section.get("images", False)
    if type(images) is not bool:
        raise _refusal(f".images is {images!r}; it must be true or false")
    if images and section.get("image_days") is None:
        raise _refusal(
            ".images is true without image_days: pictures are kept only with a limit; write after "
            "how many days they are removed"
        )
    return CaptureSettings(**section)


def _refusal(text: str) -> Refusal:
    return Refusal(f"model-config.yaml: handler.capture{text if text[0] == '.' else ' ' + text}")
