"""The options of caption generation: the single place of their names, types, limits and defaults.

The same names are used as JSON fields, form fields, query parameters (on the KServe routes), gRPC
input keys and command-line settings. A checkpoint's `generation_config.json` uses Hugging Face's
names. To add an option, add a field to `GenerationOptions` and an argument to `Search.forward`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from model.refusal import Refusal


class UnknownOption(Refusal):
    """An option name that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown option {name[:40]!r}; known options: {', '.join(OPTIONS)}")
        self.name = name


class BadOption(Refusal):
    """A known option with a value it cannot take."""

    def __init__(self, name: str, value: object, limit: str) -> None:
        # Python refuses to print integers of thousands of digits, and fails on lists that are
        # nested too deeply.
        if isinstance(value, int) and abs(value) > 10**40:
            shown = "a number of over 40 digits"
        elif isinstance(value, list | dict):
            shown = "a list" if isinstance(value, list) else "an object"
        else:
            shown = repr(str(value)[:40])
        super().__init__(f"option {name} is {shown}; it must be {limit}")
        self.name = name


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of caption generation.

    Attributes:
        name: Its name here and in requests.
        kind: `int`, `float`, or `str` for text.
        low: Smallest value accepted; of text the fewest characters.
        high: Largest value accepted; of text the most characters.
        default: Value where neither the captioner nor the request gives one.
        hugging_face: Its name in Hugging Face's `generation_config.json`.
        help: One line for users.
    """

    name: str
    kind: type[int] | type[float] | type[str]
    low: float
    high: float
    default: float | str
    hugging_face: str
    help: str

    def check(self, value: object) -> float | str:
        """The value as one of this option's type.

        Raises:
            BadOption: It is not of this type, or outside the limits.
        """
        if self.kind is str:
            # JSON may hold half a character, which a tokenizer cannot read.
            whole = isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
            if not (isinstance(value, str) and whole and self.low <= len(value) <= self.high):
                limit = f"text of at most {self.high:g} characters"
                raise BadOption(self.name, value, limit)
            return value
        numbers = int if self.kind is int else (int, float)
        if (
            isinstance(value, bool)
            or not isinstance(value, numbers)
            or not self.low <= value <= self.high
        ):
            noun = "a whole number" if self.kind is int else "a number"
            raise BadOption(self.name, value, f"{noun} from {self.low:g} to {self.high:g}")
        return self.kind(value)


def _option(default: Any, low: float, high: float, hugging_face: str, help: str) -> Any:
    """A field of `GenerationOptions`; `OPTIONS` is made from what is recorded here."""
    described = {
        "kind": type(default),
        "low": low,
        "high": high,
        "default": default,
        "hugging_face": hugging_face,
        "help": help,
    }
    return dataclasses.field(default=default, metadata=described)


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """How captions are searched for; each field is an option, described in `OPTIONS`.

    Raises:
        BadOption: A value of the wrong type, outside its limits, or in conflict with another one.
    """

    num_beams: int = _option(5, 1, 8, "num_beams", "width of the beam search; 1 is greedy search")
    num_captions: int = _option(
        1, 1, 8, "num_return_sequences", "captions for each image, best first; at most num_beams"
    )
    max_tokens: int = _option(
        32, 1, 64, "max_new_tokens", "most tokens of a caption, the end token included"
    )
    min_tokens: int = _option(
        0, 0, 64, "min_new_tokens", "tokens of a caption before the end token is allowed"
    )
    max_characters: int = _option(
        0,
        0,
        1000,
        "max_characters",
        "most characters of a caption, which ends with a whole sentence or word; 0 for any number",
    )
    length_penalty: float = _option(
        1.0,
        -5.0,
        5.0,
        "length_penalty",
        "beams are ranked by log-probability / tokens ** length_penalty; larger favours long ones",
    )
    repetition_penalty: float = _option(
        1.0,
        0.1,
        10.0,
        "repetition_penalty",
        "above 1 makes words that the caption has already less likely; 1 is none",
    )
    no_repeat_ngram_size: int = _option(
        0, 0, 10, "no_repeat_ngram_size", "no run of this many tokens comes twice; 0 allows all"
    )
    temperature: float = _option(
        0.0,
        0.0,
        5.0,
        "temperature",
        "above 0 the words are drawn by chance, the more evenly the larger; 0 searches",
    )
    top_k: int = _option(
        0, 0, 1000, "top_k", "draw from the top_k most likely tokens only; 0 for all"
    )
    top_p: float = _option(
        1.0,
        0.01,
        1.0,
        "top_p",
        "draw from the fewest most likely tokens with this much probability; 1 for all",
    )
    seed: int = _option(
        0, 0, 2**31 - 1, "seed", "the same seed draws the same caption; another one draws another"
    )
    prompt: str = _option(
        "", 0, 200, "prompt", "the beginning of the caption, which is written on from there"
    )

    def __post_init__(self) -> None:
        """Refuse values outside their limits, alone and against each other."""
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, option.check(getattr(self, name)))
        if self.temperature > 0 and self.num_beams > 1:
            raise BadOption("num_beams", self.num_beams, "1 where temperature is above 0")
        for name in DRAW if self.temperature == 0 else ():
            if getattr(self, name) != OPTIONS[name].default:
                usual = f"{OPTIONS[name].default} where temperature is 0: nothing is drawn"
                raise BadOption(name, getattr(self, name), usual)
        if self.temperature == 0 and self.num_captions > self.num_beams:
            raise BadOption(
                "num_captions",
                self.num_captions,
                f"at most num_beams ({self.num_beams}); raise num_beams or ask for fewer captions",
            )
        if 0 < self.max_characters < LEAST_CHARACTERS:
            raise BadOption(
                "max_characters",
                self.max_characters,
                f"0 for any number, or from {LEAST_CHARACTERS} to "
                f"{OPTIONS['max_characters'].high:g}",
            )
        if self.min_tokens > self.max_tokens:
            raise BadOption(
                "min_tokens", self.min_tokens, f"at most max_tokens ({self.max_tokens})"
            )

    def updated(self, given: Mapping[str, Any]) -> GenerationOptions:
        """These options with the values of a request.

        Options that the request leaves out are adapted to those that it gives: `num_beams` and
        `num_captions` to each other, `min_tokens` to `max_tokens`, `num_beams` to a draw, and a
        draw to `num_beams`. `max_new_tokens` is another name of `max_tokens`.

        Args:
            given: Names to values; a number may be text that spells it (as in a form).

        Raises:
            UnknownOption: A name that is not an option.
            BadOption: A value of the wrong type or outside its limits.
        """
        values: dict[str, Any] = {}
        for called, value in given.items():
            name = SYNONYMS.get(called, called)
            if name not in OPTIONS:
                raise UnknownOption(called)
            if name in values:
                raise BadOption(called, value, f"left out where {name} is given")
            kind = OPTIONS[name].kind
            values[name] = OPTIONS[name].check(value if kind is str else _number(value, kind))
            if kind is str and not str(value).strip():
                raise BadOption(name, value, "left out, or text that is not blank")
        if "num_beams" in values and values["num_beams"] > 1 and "temperature" not in values:
            values["temperature"] = 0.0
        temperature = values.get("temperature", self.temperature)
        if temperature > 0:
            values.setdefault("num_beams", 1)
        else:
            values = {**{name: OPTIONS[name].default for name in DRAW}, **values}
            if "num_captions" in values and "num_beams" not in values:
                values["num_beams"] = max(self.num_beams, values["num_captions"])
            elif "num_beams" in values and "num_captions" not in values:
                values["num_captions"] = min(self.num_captions, values["num_beams"])
        if "max_tokens" in values and "min_tokens" not in values:
            values["min_tokens"] = min(self.min_tokens, values["max_tokens"])
        return dataclasses.replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain names and values in the order of `OPTIONS`, as written to JSON."""
        return dataclasses.asdict(self)


def _number(value: object, kind: type[int] | type[float] | type[str]) -> object:
    """The number that text spells in JSON, as an int where `kind` is int and the value is whole.

    Anything else is returned as it is; `Option.check` refuses it.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, or brackets nested too deeply
            return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


#: The smallest limit of characters: room for a word in most languages.
LEAST_CHARACTERS = 16
#: Options of a draw; without one they have their defaults.
DRAW = ("top_k", "top_p", "seed")
#: Other names of options in requests.
SYNONYMS = {"max_new_tokens": "max_tokens"}
#: Every option by name, in the order of the arguments of `Search.forward`, but for `seed`, `prompt`
#: and `max_characters`.
OPTIONS: dict[str, Option] = {
    field.name: Option(field.name, **field.metadata)
    for field in dataclasses.fields(GenerationOptions)
}
