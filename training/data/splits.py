"""Names of splits: the three that every stage reads, and what other people call them."""

from __future__ import annotations

#: Name here -> what it may be called elsewhere, in any case.
NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}
#: Further names: of COCO in Karpathy's splits, and of drawn scenes.
OTHERS = ("restval", "compositional")
_CANONICAL = {other: name for name, others in NAMES.items() for other in others}


def canonical_split(name: str) -> str:
    """The name of a split as all stages use it.

    Args:
        name: `train`, `val`, `test` or another word for it, in any case; one of `OTHERS`; or a name
            that begins with `test`, for a further test split, such as `test_night`.

    Returns:
        The name in lower case.

    Raises:
        ValueError: Another name; the message lists the known ones.
    """
    low = name.lower()
    if low in _CANONICAL:
        return _CANONICAL[low]
    if low in OTHERS or low.startswith("test"):
        return low
    known = "; ".join(f"{here} ({', '.join(others[1:])})" for here, others in NAMES.items())
    raise ValueError(
        f"split is {name!r}; it must be one of {known}; a further test split may have a name that "
        "begins with test, such as test_night"
    )
