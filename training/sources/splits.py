"""Which split a picture comes to, where nobody said it."""

from __future__ import annotations

import hashlib

from model.refusal import Refusal


def check_shares(setting: str, shares: dict[str, float]) -> None:
    """Refuse shares that cannot be meant."""
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
        raise Refusal(f"{setting} are {shares}; they must be 0 or more and add up to 1")


def drawn_split(key: str, shares: dict[str, float]) -> str:
    """A split by chance, the same for the same key."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    for split, share in shares.items():
        place -= share
        if place < 0:
            return split
    return max(shares, key=lambda split: shares[split])  # shares add up to a hair less than 1
