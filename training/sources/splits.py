"""Assigns pictures to splits at random, where the source does not give their splits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container

from model.refusal import Refusal
from training.sources.settings import SplitFractions


def split_fractions(setting: str, fractions: SplitFractions) -> dict[str, float]:
    """The fractions of a source's settings by split name.

    Args:
        setting: Full name of the setting, for the message.
        fractions: Of all pictures, for each split.

    Raises:
        Refusal: A fraction is negative, or they do not add up to 1.
    """
    by_split: dict[str, float] = dataclasses.asdict(fractions)
    if abs(sum(by_split.values()) - 1) > 1e-6 or min(by_split.values()) < 0:
        raise Refusal(f"{setting} are {by_split}; they must be 0 or more and add up to 1")
    return by_split


def drawn_split(key: str, fractions: dict[str, float]) -> str:
    """A split chosen at random, always the same one for the same key and fractions.

    Args:
        key: Identifies the picture and the seed. A hash of it takes the place of a random number,
            so pictures that are added later do not change the split of the others.
        fractions: Of all pictures, by split name.
    """
    remainder = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64  # in [0, 1)
    for split, fraction in fractions.items():
        remainder -= fraction
        if remainder < 0:
            return split
    # The fractions may add up to slightly less than 1 (rounding of floats).
    return max(fractions, key=lambda split: fractions[split])


def empty_splits(fractions: dict[str, float], used: Container[str]) -> list[str]:
    """Splits that should have pictures but got none.

    Args:
        fractions: Of all pictures, by split name.
        used: Splits that have pictures.
    """
    return [split for split, fraction in fractions.items() if fraction and split not in used]
