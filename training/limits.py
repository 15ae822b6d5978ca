"""Limits of settings: each stands beside its setting in `training.config` and is checked here.

    epochs: Annotated[int, Range(1)]                        # at least 1
    word_dropout: Annotated[float, Range(0, below=1)]       # at least 0 and less than 1
    tuning: Annotated[str, Choice("full", "lora")]          # full or lora
    loggers: Annotated[list[str], Choices("csv", "wandb")]  # none, one or both of them

So name, type and limit of a setting are one line.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may be; they are always finite, and a limit of None is none.

    Attributes:
        low: Smallest value.
        high: Largest value.
        above: The value must be larger than this.
        below: The value must be smaller than this.
        usual: Words on usual values, for the message.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    usual: str = ""

    def allows(self, value: float) -> bool:
        """Whether a value is within the limits."""
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The limits as words."""
        limits = (
            ("at least", self.low),
            ("above", self.above),
            ("at most", self.high),
            ("less than", self.below),
        )
        said = " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)
        return f"{said}, {self.usual}" if self.usual else said


class Choice:
    """The words that a setting may be."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def allows(self, value: str) -> bool:
        """Whether a value is one of the words."""
        return value in self.words

    def __str__(self) -> str:
        """The words as a list."""
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"


class Choices(Choice):
    """The words that a list may have, each once."""

    def allows(self, value: list[str]) -> bool:  # type: ignore[override]  # of a list
        """Whether every element is one of the words."""
        return set(value) <= set(self.words) and len(set(value)) == len(value)

    def __str__(self) -> str:
        """The words as a list."""
        return f"a list of {super().__str__()}, each at most once"


def check_limits(settings: Any, name: str = "") -> None:
    """Check every setting of a dataclass, and of the dataclasses in it, against its limit.

    Args:
        settings: An instance of a dataclass.
        name: The key of these settings, such as `train.lora`; empty for all settings.

    Raises:
        Refusal: The first value outside of its limit, with its key and the limit.
    """
    for field, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        key = f"{name}.{field}" if name else field
        value = getattr(settings, field)
        if dataclasses.is_dataclass(value):
            check_limits(value, key)
        for limit in getattr(hint, "__metadata__", ()):
            if not limit.allows(value):
                shown = repr(value) if isinstance(value, str) else value
                raise Refusal(f"{key} is {shown}; it must be {limit}")
