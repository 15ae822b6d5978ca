"""What became of each request of a run, and of each stage: written by Locust, read afterwards."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

#: `answered`: as it should be; that is an error for a bad request. `refused`: 503, overloaded.
#: `wrong`: another reply. `unanswered`: no reply, or another status of a server that failed.
Outcome = Literal["answered", "refused", "wrong", "unanswered"]


class Record(NamedTuple):
    """One request.

    Attributes:
        begin: When it was sent, in seconds since 1970.
        ms: Milliseconds until its reply was there, measured by the client.
        kind: Its kind.
        client: Whose key it carried.
        status: Of the reply; 0 if there was none.
        outcome: What became of it.
        ties: Captions in place of other ones of equal score.
        problem: What is wrong; empty if nothing is.
    """

    begin: float
    ms: float
    kind: str
    client: str
    status: int
    outcome: Outcome
    ties: int = 0
    problem: str = ""

    @property
    def end(self) -> float:
        """When its reply was there, in seconds since 1970."""
        return self.begin + self.ms / 1000


@dataclasses.dataclass
class Span:
    """A stage as it was run.

    Attributes:
        name: Of the stage.
        begin: When it began, in seconds since 1970.
        settled: When the part begins that is measured.
        end: When it ended.
        wanted_per_second: The rate of arrivals that was asked for; 0 if users waited for replies.
    """

    name: str
    begin: float
    settled: float
    end: float = 0.0
    wanted_per_second: float = 0.0


def write_records(file: Path, records: Iterable[Record]) -> None:
    """Write records as CSV, with a head."""
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(Record._fields)
        for each in records:
            rows.writerow(each._replace(begin=round(each.begin, 3), ms=round(each.ms, 2)))


def read_records(file: Path) -> list[Record]:
    """The records of a file that `write_records` wrote."""
    with file.open(newline="") as given:
        return [
            Record(
                float(row["begin"]),
                float(row["ms"]),
                row["kind"],
                row["client"],
                int(row["status"]),
                row["outcome"],  # type: ignore[arg-type]
                int(row["ties"]),
                row["problem"],
            )
            for row in csv.DictReader(given)
        ]
