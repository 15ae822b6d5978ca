"""Deletes what a person asks for, and what is too old."""

from __future__ import annotations

import dataclasses

from sqlalchemy import ColumnElement, Connection, Engine, delete, select, text

from feedback.database import WRITERS, writing
from feedback.opinions import delete_unused
from feedback.tables import answers, feedback


@dataclasses.dataclass(frozen=True)
class Erased:
    """How many rows were deleted."""

    answers: int
    feedback: int
    pictures: int


def erase(engine: Engine, request_id: str) -> Erased:
    """Delete everything about a request: its captions, what was said of them, kept pictures.

    A picture stays only if the feedback on another request has kept the same one. SQLite's file is
    overwritten where the rows were.
    """
    with writing(engine, WRITERS) as connection:
        of_request = answers.c.request_id == request_id
        gone = connection.execute(delete(answers).where(of_request)).rowcount
        rows, kept = _delete(connection, feedback.c.request_id == request_id)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.execute(text("COMMIT"))  # of the transaction that `begin` started
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
            connection.execute(text("BEGIN"))
    return Erased(gone, rows, kept)


def expire(connection: Connection, days: float, now: float) -> tuple[int, int]:
    """Delete feedback that was given too long ago, and its pictures.

    Args:
        connection: Of a transaction that writes.
        days: How long a feedback is kept.
        now: In seconds since 1970.

    Returns:
        Number of feedbacks, and of pictures.
    """
    return _delete(connection, feedback.c.given < now - 86400 * days)


def _delete(connection: Connection, which: ColumnElement[bool]) -> tuple[int, int]:
    kept = feedback.c.picture
    found = select(kept).where(which, kept.is_not(None)).distinct()
    hashes = list(connection.scalars(found))
    rows = connection.execute(delete(feedback).where(which)).rowcount
    count = 0
    for start in range(0, len(hashes), 500):  # a statement has a limit of values
        count += delete_unused(connection, hashes[start : start + 500])
    return rows, count
