"""Reads feedback row by row, for figures and data sets; memory does not grow with the rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from feedback.tables import answers, feedback, pictures

#: Rows that are fetched at a time.
ROWS = 1000


@dataclasses.dataclass(frozen=True)
class Opined:
    """One feedback, as figures need it.

    Attributes:
        answered: When the caption was given, in seconds since 1970.
        model: Name of the model that gave it.
        version: Its version.
        caption: What was given.
        thumbs: 1, -1 or None.
        correction: The better caption, or None.
    """

    answered: float
    model: str
    version: str
    caption: str
    thumbs: int | None
    correction: str | None


@dataclasses.dataclass(frozen=True)
class KeptPicture:
    """A picture that people left to train on, and the captions that they hold for right.

    Attributes:
        sha256: Of the picture file, in hex.
        corrections: Better captions, the newest last; as often as they were written.
        praised: Captions that got thumbs up and no correction.
        corrected: Captions that somebody corrected.
    """

    sha256: str
    corrections: tuple[str, ...]
    praised: tuple[str, ...]
    corrected: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a database holds."""

    answers: int
    feedback: int
    corrections: int
    pictures: int
    picture_bytes: int


def opinions(
    connection: Connection, since: float | None = None, until: float | None = None
) -> Iterator[Opined]:
    """Every feedback, by the time of its caption.

    Args:
        connection: Of a transaction that reads.
        since: Only of captions given then or later, in seconds since 1970.
        until: Only of captions given before.
    """
    columns = [feedback.c[field.name] for field in dataclasses.fields(Opined)]
    query = select(*columns).order_by(feedback.c.answered, feedback.c.id)
    if since is not None:
        query = query.where(feedback.c.answered >= since)
    if until is not None:
        query = query.where(feedback.c.answered < until)
    for row in connection.execution_options(yield_per=ROWS).execute(query):
        yield Opined(*row)


def kept_pictures(connection: Connection) -> Iterator[KeptPicture]:
    """Every picture with a caption that is held for right, by its SHA-256."""
    query = (
        select(feedback.c.picture, feedback.c.caption, feedback.c.thumbs, feedback.c.correction)
        .where(feedback.c.picture.is_not(None))
        .order_by(feedback.c.picture, feedback.c.given, feedback.c.id)
    )
    rows = connection.execution_options(yield_per=ROWS).execute(query)
    for sha256, group in itertools.groupby(rows, key=lambda row: row.picture):
        corrections: list[str] = []
        praised: list[str] = []
        corrected: list[str] = []
        for row in group:
            if row.correction is not None:
                corrections.append(row.correction)
                corrected.append(row.caption)
            elif row.thumbs == 1:
                praised.append(row.caption)
        yield KeptPicture(sha256, tuple(corrections), tuple(praised), tuple(corrected))


def content(connection: Connection, sha256: str) -> bytes:
    """The file of a kept picture.

    Raises:
        LookupError: It was deleted.
    """
    found = connection.scalar(select(pictures.c.content).where(pictures.c.sha256 == sha256))
    if found is None:
        raise LookupError(sha256)
    return bytes(found)


def counts(connection: Connection) -> Counts:
    """How much a database holds."""

    def number(query: object) -> int:
        return int(connection.scalar(query) or 0)  # type: ignore[call-overload]

    return Counts(
        number(select(func.count()).select_from(answers)),
        number(select(func.count()).select_from(feedback)),
        number(select(func.count()).where(feedback.c.correction.is_not(None))),
        number(select(func.count()).select_from(pictures)),
        number(select(func.sum(pictures.c.size))),
    )
