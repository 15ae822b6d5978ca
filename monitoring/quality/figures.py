"""Figures of feedback by week and by model version, read row by row from the database.

CIDEr compares the caption that was given with the correction of a person (arXiv 1411.5726). How
rare a word is, is counted in all corrections that are read, so that the weeks are comparable: a
first pass counts words, a second one scores. Memory grows with the different words, and with the
number of weeks times versions.

People correct what is wrong, so this CIDEr says how far off wrong captions are. The share of thumbs
says how often captions are right, among those that people rate.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection

from feedback.reading import Opined, opinions
from monitoring.quality.intervals import Estimate, Mean, share
from monitoring.quality.words import CorrectedWords
from training.evaluation.scores.cider_reward import CiderReward

#: Rows that are scored together.
CHUNK = 500
#: Names of the two spans of time that an alert compares -> days from now, end and beginning.
WINDOWS = {"last_7_days": (0, 7), "28_days_before": (7, 35)}
DAY = 86400.0


@dataclasses.dataclass
class Tally:
    """What was said in a span of time.

    Attributes:
        feedback: Number of feedbacks.
        up: With thumbs up.
        down: With thumbs down.
        cider: Of the captions that were corrected.
    """

    feedback: int = 0
    up: int = 0
    down: int = 0
    cider: Mean = dataclasses.field(default_factory=Mean)

    def add(self, row: Opined, cider: float | None) -> None:
        """Count a feedback; `cider` is that of its caption if it was corrected."""
        self.feedback += 1
        self.up += row.thumbs == 1
        self.down += row.thumbs == -1
        if cider is not None:
            self.cider.add(cider)

    @property
    def thumbs(self) -> int:
        """Number of thumbs."""
        return self.up + self.down

    @property
    def corrections(self) -> int:
        """Number of corrections."""
        return self.cider.count

    def up_share(self) -> Estimate | None:
        """Share of thumbs that are up."""
        return share(self.up, self.thumbs)


@dataclasses.dataclass(frozen=True)
class Quality:
    """All figures.

    Attributes:
        weeks: (ISO week such as `2026-W48`, model, version) -> what was said of its captions.
        models: (window, model) -> the same for all versions of a model.
        versions: (window, model, version) -> the same.
        words: The words that people correct.
        rows: Feedbacks that were read.
    """

    weeks: dict[tuple[str, str, str], Tally]
    models: dict[tuple[str, str], Tally]
    versions: dict[tuple[str, str, str], Tally]
    words: CorrectedWords
    rows: int


def week_of(seconds: float) -> str:
    """The ISO week of a time, in UTC, such as `2026-W48`; it begins on Monday."""
    year, week, _ = datetime.fromtimestamp(seconds, UTC).isocalendar()
    return f"{year}-W{week:02d}"


def measure(connection: Connection, since: float, now: float) -> Quality:
    """All figures of captions that were given from `since` until `now`, seconds since 1970.

    Args:
        connection: Of a transaction that reads; both passes must see the same rows.
        since: Beginning.
        now: End.
    """
    rows = opinions(connection, since, now)
    cider = CiderReward(([row.correction] for row in rows if row.correction), end=False)
    found = Quality(defaultdict(Tally), defaultdict(Tally), defaultdict(Tally), CorrectedWords(), 0)
    count = 0
    for row, score in _scored(opinions(connection, since, now), cider):
        count += 1
        found.weeks[week_of(row.answered), row.model, row.version].add(row, score)
        for window, (end, begin) in WINDOWS.items():
            if now - DAY * begin <= row.answered < now - DAY * end:
                found.models[window, row.model].add(row, score)
                found.versions[window, row.model, row.version].add(row, score)
        if row.correction is not None:
            found.words.add(row.caption, row.correction)
    return dataclasses.replace(found, rows=count)


def _scored(rows: Iterator[Opined], cider: CiderReward) -> Iterator[tuple[Opined, float | None]]:
    """Each row, and the CIDEr of its caption if there is a correction."""
    while chunk := list(itertools.islice(rows, CHUNK)):
        corrected = [(row.caption, row.correction) for row in chunk if row.correction is not None]
        captions = [(caption, True) for caption, _ in corrected]
        scores = iter(cider(captions, [[correction] for _, correction in corrected]).tolist())
        for row in chunk:
            yield row, None if row.correction is None else next(scores)
