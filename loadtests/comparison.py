"""Compares the reply to a picture under load with the one that it got alone."""

from __future__ import annotations

from typing import Any

#: Largest difference of a caption's score between batches of different sizes, in nats per token. In
#: bf16 it is 1e-3, because processors with AMX add up large batches in another order.
SCORE_TOLERANCE = 2e-3
#: Largest difference of score between two captions that are given in place of each other because of
#: that, in nats per token: the same as an export may change (`LIKELIHOOD_TOLERANCE` of
#: `training.exporting.comparison`).
TIE_TOLERANCE = 0.02


def difference(seen: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """What differs between a reply and the one to the same picture alone; None if nothing does.

    Args:
        seen: The reply under load.
        expected: The reply to the only request.
    """
    if set(seen) != set(expected):
        return f"fields {sorted(seen)}"
    if len(seen["captions"]) != len(expected["captions"]):
        return f"{len(seen['captions'])} captions, not {len(expected['captions'])}"
    for ours, theirs in zip(seen["captions"], expected["captions"], strict=True):
        other = ours["caption"] != theirs["caption"]
        # A larger difference means that it is another picture's reply.
        limit = (TIE_TOLERANCE if other else SCORE_TOLERANCE) * theirs["tokens"]
        if abs(ours["log_prob"] - theirs["log_prob"]) > limit:
            return f"{ours['caption']!r} ({ours['log_prob']}), not {theirs['caption']!r}"
        if not ours["caption"]:
            return "an empty caption"
    return None


def ties(seen: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Captions of a reply that are given in place of another one of equal score.

    Args:
        seen: The reply under load, which has no `difference`.
        expected: The reply to the only request.
    """
    pairs = zip(seen["captions"], expected["captions"], strict=True)
    return [ours["caption"] for ours, theirs in pairs if ours["caption"] != theirs["caption"]]
