"""The options that a server describes, with their limits, and the check of values against them.

A value is refused with the code and the text that the server itself would use.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from client.errors import CaptionError

#: Form field, or gRPC input key, of the picture itself.
PICTURE_FIELD = "data"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of caption generation, as the server describes it.

    Attributes:
        name: Its name in requests.
        type: `int`, `float`, or `str` for text; another one, or None, is not checked.
        low: Smallest value; of text the fewest characters. None if the server names none.
        high: Largest value; of text the most characters. None if the server names none.
        default: Its value where a request gives none.
        help: One line for users.
    """

    name: str
    type: str | None
    low: float | None
    high: float | None
    default: float | str | None
    help: str

    def check(self, text: str) -> None:
        """Refuse a value that the server would refuse.

        Args:
            text: The value as it is sent.

        Raises:
            CaptionError: 422 `bad_option`.
        """
        if self.type not in ("int", "float", "str") or self.low is None or self.high is None:
            return
        if self.type == "str":
            if not self.low <= len(text) <= self.high:
                raise self._refusal(text, f"text of at most {self.high:g} characters")
            if not text.strip():
                raise self._refusal(text, "left out, or text that is not blank")
            return
        value = _number(text, whole=self.type == "int")
        numbers = int if self.type == "int" else (int, float)
        is_number = isinstance(value, numbers) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            noun = "a whole number" if self.type == "int" else "a number"
            raise self._refusal(value, f"{noun} from {self.low:g} to {self.high:g}")

    def _refusal(self, value: Any, limit: str) -> CaptionError:
        if isinstance(value, int) and abs(value) > 10**40:
            shown = "a number of over 40 digits"
        elif isinstance(value, list | dict):
            shown = "a list" if isinstance(value, list) else "an object"
        else:
            shown = repr(str(value)[:40])
        return bad_option(self.name, shown, limit)


def bad_option(name: str, shown: str, limit: str) -> CaptionError:
    """The error for a value that an option cannot take."""
    return CaptionError(422, "bad_option", f"option {name} is {shown}; it must be {limit}")


def _number(text: str, *, whole: bool) -> Any:
    """The JSON value of a text, as an int where a whole one is asked for; else the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def read_options(description: Mapping[str, Any]) -> dict[str, Option]:
    """The options of a server's description, by name."""
    return {name: _option(name, given) for name, given in description["options"].items()}


def _option(name: str, given: Any) -> Option:
    fields = given if isinstance(given, dict) else {}
    low, high = (_limit(fields.get(key)) for key in ("from", "to"))
    kind, meaning = fields.get("type"), fields.get("help")
    return Option(
        name,
        kind if isinstance(kind, str) else None,
        low,
        high,
        fields.get("default"),
        meaning if isinstance(meaning, str) else "",
    )


def _limit(value: Any) -> float | None:
    """A limit of a description; None for what is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def check_options(description: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Refuse options that the server would refuse, each for itself.

    What two options say together, such as more captions than beams, is left to the server, and so
    are the fields that ask for an explanation or for more in the reply.

    Args:
        description: The server's own, with `options`, `synonyms`, `explanation` and `extras`.
        texts: Names and values, as they are sent.

    Raises:
        CaptionError: 400 `unknown_option` or 422 `bad_option`.
    """
    options = read_options(description)
    synonyms, others = description.get("synonyms"), _other_fields(description)
    given = set()
    for called, text in texts.items():
        if called in others:
            continue
        name = synonyms.get(called, called) if isinstance(synonyms, dict) else called
        if name not in options:
            known = ", ".join(options)
            message = f"unknown option {called[:40]!r}; known options: {known}"
            raise CaptionError(400, "unknown_option", message)
        if name in given:
            raise bad_option(called, repr(text[:40]), f"left out where {name} is given")
        given.add(name)
        options[name].check(text)


def _other_fields(description: Mapping[str, Any]) -> set[str]:
    """Fields of a request that stand where options stand, and are none."""
    explanation, extras = description.get("explanation"), description.get("extras")
    fields = {"explain", *explanation} if isinstance(explanation, dict) else set()
    return fields | set(extras) if isinstance(extras, dict) else fields


def option_texts(options: Mapping[str, float | str]) -> dict[str, str]:
    """Options as the text that is sent.

    Raises:
        ValueError: An option is called `data`, which is the field of the picture, or its value
            cannot be sent as UTF-8.
    """
    if PICTURE_FIELD in options:
        raise ValueError(f"{PICTURE_FIELD} is the field of the picture itself, not an option")
    texts = {name: str(value) for name, value in options.items()}
    for name, text in texts.items():
        if any("\ud800" <= character <= "\udfff" for character in name + text):
            shown = name.encode(errors="backslashreplace").decode()
            raise ValueError(f"option {shown} holds half a character; send whole ones")
    return texts
