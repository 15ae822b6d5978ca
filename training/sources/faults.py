"""Everything that is wrong with a source, said at once instead of one run after the other."""

from __future__ import annotations

from collections.abc import Sequence

from model.refusal import Refusal

#: Faults that are listed; the rest are counted.
NAMED = 20


def counted(faults: Sequence[str]) -> str:
    """How many there are, as people say it: `1 fault`, `2 faults`."""
    return f"{len(faults)} fault{'' if len(faults) == 1 else 's'}"


def listed(faults: Sequence[str]) -> str:
    """One indented line for each of the first `NAMED` faults, and how many more there are."""
    more = [f"… and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
    return "".join(f"\n  {fault}" for fault in [*faults[:NAMED], *more])


def check_on_broken(setting: str, value: str) -> None:
    """Refuse anything but the two ways to deal with faults.

    Raises:
        Refusal: Neither `stop` nor `skip`.
    """
    if value not in ("stop", "skip"):
        raise Refusal(f"{setting} is {value!r}; it must be stop or skip")
