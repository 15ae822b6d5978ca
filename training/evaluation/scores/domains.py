"""A test set in parts: the splits `test_*`, such as nocaps' domains, and their overall figures.

Agrawal et al.: "nocaps: novel object captioning at scale" (arXiv 1812.08658) reports its domains
in-domain, near-domain and out-of-domain, and all pictures. CIDEr of a part weighs words by the
references of that part, so the overall CIDEr is no mean of those of the parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from model.refusal import Refusal
from training.data.dataset import CaptionDataset

Value = TypeVar("Value")
WHOLE, PART = "test", "test_"
#: Name of the figures on all parts that were scored.
OVERALL = "overall"


def scored_splits(dataset: CaptionDataset, names: Sequence[str]) -> list[str]:
    """The splits of a data set that are scored.

    Args:
        dataset: The data set.
        names: The splits that are asked for; `test` stands for all splits `test_*` of a data set
            without a split `test`.

    Returns:
        Those that the data set has, each once.

    Raises:
        Refusal: It has none of them, or a split has the name `OVERALL` beside parts.
    """
    own = [name for name, ids in dataset.splits.items() if ids]
    parts = [name for name in own if name.startswith(PART)]
    wanted: list[str] = []
    for name in names:
        wanted += parts if name == WHOLE and WHOLE not in own else [name]
    splits = list(dict.fromkeys(name for name in wanted if name in own))
    if not splits:
        raise Refusal(
            f"{dataset.root} has none of the splits {', '.join(names)}; it has "
            f"{', '.join(dataset.splits)}; name them: evaluate.splits=[...]"
        )
    if OVERALL in splits and len(_parts(splits)) > 1:
        raise Refusal(
            f"{dataset.root} has a split {OVERALL!r}, which is the name of the figures on all "
            f"splits {PART}*; rename it, or leave it out of evaluate.splits"
        )
    return splits


def with_overall(by_split: Mapping[str, Mapping[int, Value]]) -> dict[str, dict[int, Value]]:
    """What belongs to the pictures of each split, and of all parts together if there are several.

    Args:
        by_split: Split -> image id -> anything.
    """
    whole = {name: dict(own) for name, own in by_split.items()}
    parts = _parts(by_split)
    if len(parts) > 1:
        whole[OVERALL] = {i: value for name in parts for i, value in by_split[name].items()}
    return whole


def count_pictures(dataset: CaptionDataset, split: str, scored: Iterable[str]) -> int:
    """Number of pictures of a split, or of all parts among the `scored` splits for `OVERALL`."""
    if split == OVERALL and not dataset.splits.get(OVERALL):
        return sum(len(dataset.ids(part)) for part in _parts(scored))
    return len(dataset.ids(split))


def _parts(splits: Iterable[str]) -> list[str]:
    return [name for name in splits if name.startswith(PART)]
