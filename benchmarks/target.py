"""Figures that were promised, and what came of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from benchmarks.table import Table


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that was promised.

    Attributes:
        what: In words.
        found: As measured.
        wanted: At least so much, or at most.
        at_most: Which of the two.
    """

    what: str
    found: float
    wanted: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is kept."""
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    def row(self) -> tuple[str, str, str, str]:
        """What, found, wanted, and pass or miss."""
        sign = "at most" if self.at_most else "at least"
        found = f"{self.found:.2g}" if self.found < 0.1 else f"{self.found:.2f}"
        return self.what, found, f"{sign} {self.wanted:g}", "pass" if self.passed else "miss"


def target_table(targets: Iterable[Target]) -> Table:
    """What one run gave."""
    return Table("Targets", ("target", "measured", "wanted", ""), [each.row() for each in targets])


def compared(measured: Mapping[str, Iterable[Target]]) -> Table:
    """Each target, and what every kind of processor gave."""
    found: dict[str, dict[str, Target]] = {}
    for kind, targets in measured.items():
        for target in targets:
            found.setdefault(target.what, {})[kind] = target
    rows = []
    for what, by_kind in sorted(found.items(), key=lambda pair: pair[0].lower()):
        _, _, wanted, _ = next(iter(by_kind.values())).row()
        cells = []
        for kind in measured:
            _, value, _, verdict = by_kind[kind].row() if kind in by_kind else ("",) * 4
            cells.append(f"{value} {verdict}".strip())
        rows.append((what, wanted, *cells))
    return Table("Targets", ("target", "wanted", *measured), rows)
