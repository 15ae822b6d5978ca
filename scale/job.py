"""What makes two runs the same job: input, captioner and options; kept in the output.

A run into an output that has a job continues it, if it is the same one. A run with another input,
captioner or other options would mix captions of two kinds, and is refused.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from model.refusal import Refusal
from scale.inputs.parquet_rows import Columns
from scale.output.store import Store
from scale.plan import ListedInput, Plan

#: The file of the job in the output. It is written when the plan is complete.
JOB = "_job.json"
#: Version of its layout.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        inputs: As they were given.
        rows: Pictures.
        repeated: Lines of the input that were left out because the same picture came before.
        fingerprint: Of the pictures.
        block_rows: Pictures of a block.
        captioner: SHA-256 of the artifact.
        options: How it captions: name -> value.
        features: Whether features are written, and whether they are divided by their norm.
        columns: Of Parquet inputs.
        limit: Most pictures that were taken.
    """

    inputs: list[str]
    rows: int
    repeated: int
    fingerprint: str
    block_rows: int
    captioner: str
    options: dict[str, Any]
    features: dict[str, bool]
    columns: dict[str, str | None]
    limit: int | None = None

    @property
    def plan(self) -> Plan:
        """How its pictures are divided."""
        return Plan(self.rows, self.block_rows)

    def parquet_columns(self) -> Columns:
        """The columns of Parquet inputs."""
        return Columns(**self.columns)


def read_job(store: Store) -> Job | None:
    """The job of an output; None if it has none yet.

    Raises:
        Refusal: The output belongs to another version of this program, or to another program.
    """
    try:
        fields = json.loads(store.read(JOB))
    except FileNotFoundError:
        others = sorted(store.names() - {"_plan", "_lock", "_sample.html"})
        if others:
            raise Refusal(
                f"{store.address} has other files, such as {others[0]}; give an empty folder"
            ) from None
        return None
    except ValueError as error:
        raise Refusal(f"{store.path(JOB)} is not JSON: {error}") from None
    if fields.pop("format", None) != FORMAT:
        raise Refusal(f"{store.path(JOB)} is of another version; give another --out")
    return Job(**fields)


def begin_or_continue(store: Store, listed: ListedInput, wanted: Job) -> tuple[Job, bool]:
    """Write the plan and the job of a first run, or check that this run continues it.

    Args:
        store: The output.
        listed: The input as it is now.
        wanted: The job that this run was asked for.

    Returns:
        The job, and whether a run before this one began it.

    Raises:
        Refusal: The output has another job; the message says what differs.
    """
    before = read_job(store)
    if before is None:
        listed.write_plan(store, wanted.block_rows)
        fields = {"format": FORMAT, **dataclasses.asdict(wanted)}
        store.write(JOB, json.dumps(fields, indent=1).encode())
        return wanted, False
    changed = [
        f"{name} was {_shown(old)} and is {_shown(new)}"
        for name, old, new in _differences(before, wanted)
    ]
    if changed:
        raise Refusal(
            f"{store.address} has another job: {'; '.join(changed)}; run with the same, or give "
            "another --out"
        )
    if before.fingerprint != wanted.fingerprint:
        raise Refusal(
            f"the input has changed since {store.address} was begun: {before.rows:,} pictures "
            f"then, {wanted.rows:,} now; {listed.first_difference(store, before.plan)}; run with "
            "the same input, or give another --out"
        )
    return before, True


def _differences(before: Job, wanted: Job) -> list[tuple[str, Any, Any]]:
    """Name, old and new value of what differs, but for the input."""
    found: list[tuple[str, Any, Any]] = []
    for name in ("captioner", "limit", "block_rows"):
        found.append((name, getattr(before, name), getattr(wanted, name)))
    for name in ("options", "features", "columns"):
        old, new = getattr(before, name), getattr(wanted, name)
        found += [(each, old.get(each), new.get(each)) for each in {**old, **new}]
    return [each for each in found if each[1] != each[2]]


def _shown(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else repr(value)
