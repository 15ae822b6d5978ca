"""Options of caption generation: their names, defaults and limits, in one place for every door.

The same names arrive as JSON fields, form fields, query parameters (on the KServe routes), gRPC
input keys and command-line settings; a checkpoint's `generation_config.json` has Hugging Face's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from model.refusal import Refusal

#: name -> (type, smallest, largest)
LIMITS: dict[str, tuple[type, float, float]] = {
    "num_beams": (int, 1, 8),
    "num_captions": (int, 1, 8),
    "max_tokens": (int, 1, 64),
    "min_tokens": (int, 0, 64),
    "length_penalty": (float, -5.0, 5.0),
}


class UnknownOption(Refusal):
    """An option name that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown option {name[:40]!r}; known options: {', '.join(LIMITS)}")
        self.name = name


class BadOption(Refusal):
    """A known option with a value it cannot take."""

    def __init__(self, name: str, value: object, limit: str) -> None:
        # Python does not write out whole numbers of thousands of digits, nor lists in lists without
        # end.
        if isinstance(value, int) and abs(value) > 10**40:
            shown = "a number of over 40 digits"
        elif isinstance(value, list | dict):
            shown = "a list" if isinstance(value, list) else "an object"
        else:
            shown = repr(str(value)[:40])
        super().__init__(f"option {name} is {shown}; it must be {limit}")
        self.name = name


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """How captions are searched for.

    Attributes:
        num_beams: Width of the beam search; 1 is greedy.
        num_captions: Captions returned per image, best first; at most `num_beams`.
        max_tokens: Tokens generated at most, the end token included.
        min_tokens: Tokens generated before the end token is allowed.
        length_penalty: Beams are ranked by log-probability / tokens ** length_penalty.
    """

    num_beams: int = 5
    num_captions: int = 1
    max_tokens: int = 32
    min_tokens: int = 0
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values outside their limits, alone and against each other."""
        for name in LIMITS:
            _check_range(name, getattr(self, name))
        if self.num_captions > self.num_beams:
            raise BadOption(
                "num_captions",
                self.num_captions,
                f"at most num_beams ({self.num_beams}); raise num_beams or ask for fewer captions",
            )
        if self.min_tokens > self.max_tokens:
            raise BadOption(
                "min_tokens", self.min_tokens, f"at most max_tokens ({self.max_tokens})"
            )

    def updated(self, given: Mapping[str, Any]) -> GenerationOptions:
        """These options with what a request gives; what is left out follows what is given.

        `num_beams` and `num_captions` follow each other, and `min_tokens` follows `max_tokens`.

        Args:
            given: Names to numbers, or to text that spells one (as in a form).

        Raises:
            UnknownOption: A name that is no option.
            BadOption: A value of the wrong kind or outside its limits.
        """
        values = {name: _parse(name, value) for name, value in given.items()}
        if "num_captions" in values and "num_beams" not in values:
            values["num_beams"] = max(self.num_beams, values["num_captions"])
        elif "num_beams" in values and "num_captions" not in values:
            values["num_captions"] = min(self.num_captions, values["num_beams"])
        if "max_tokens" in values and "min_tokens" not in values:
            values["min_tokens"] = min(self.min_tokens, values["max_tokens"])
        return dataclasses.replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain names and numbers, as written to JSON."""
        return dataclasses.asdict(self)


def _limit_text(name: str) -> str:
    kind, low, high = LIMITS[name]
    noun = "a whole number" if kind is int else "a number"
    return f"{noun} from {low:g} to {high:g}"


def _check_range(name: str, value: Any) -> None:
    kind, low, high = LIMITS[name]
    numeric = isinstance(value, int if kind is int else (int, float))
    if isinstance(value, bool) or not numeric or not low <= value <= high:
        raise BadOption(name, value, _limit_text(name))


def _parse(name: str, value: Any) -> Any:
    """A number from what a request holds; text must spell a JSON number, nothing looser."""
    if name not in LIMITS:
        raise UnknownOption(name)
    kind, low, high = LIMITS[name]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, or brackets without end
            raise BadOption(name, value, _limit_text(name)) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadOption(name, value, _limit_text(name))
    # The range first: what is outside it may be infinite, or too long for a float.
    if not low <= value <= high or (kind is int and value != int(value)):
        raise BadOption(name, value, _limit_text(name))
    return kind(value)
