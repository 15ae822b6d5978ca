"""What was answered lately: the captions of each picture, by the id of the request.

A feedback names a request and no caption, so nobody can rate a caption that was never given. An
answer has the SHA-256 of its picture and not the picture: a picture that somebody sends to be kept
must be the one that was captioned, which the captioner could decode.

An id that a client chose is its own: another client may choose the same, and neither can rate the
captions of the other. One that the gateway gave cannot be guessed, so whoever has it may rate: a
person's address may change between a caption and what is thought of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from feedback.errors import OpinionRefused
from feedback.tables import answers

#: Bytes of an id that are by chance, after the six of its time.
_CHANCE = 10


@dataclasses.dataclass(frozen=True)
class Served:
    """A caption that was given.

    Attributes:
        caption: Its text.
        confidence: From 0 to 1.
        quality: How likely it is right, from 0 to 1; None from a captioner that does not say.
    """

    caption: str
    confidence: float
    quality: float | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The captions of one picture of a request.

    Attributes:
        request_id: Of the request.
        owner: `owner_of` the id.
        picture_index: Of the picture in the request, from 0.
        answered: When, in seconds since 1970.
        model: Name of the model.
        version: Its version.
        captions: Best first; at least one.
        sha256: Of the picture file, in hex.
        id: Of the row; 0 before it is written.
    """

    request_id: str
    owner: str
    picture_index: int
    answered: float
    model: str
    version: str
    captions: tuple[Served, ...]
    sha256: str
    id: int = 0


def new_request_id() -> str:
    """An id that nobody can guess and that tells when it was made: 32 hexadecimal digits."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(_CHANCE)}"


def made_at(request_id: str) -> float | None:
    """When an id of `new_request_id` was made, in seconds since 1970; None for any other id."""
    if len(request_id) != 12 + 2 * _CHANCE or not set(request_id) <= set("0123456789abcdef"):
        return None
    return int(request_id[:12], 16) / 1000


def caller_hash(request_id: str, caller: str) -> str:
    """Stands for a client in the database, in hex; another one for each request.

    It tells whether two feedbacks about a request are of one client, and not what else this client
    asked. Somebody who tries all addresses can find an address again.
    """
    return hashlib.sha256(f"{request_id}\n{caller}".encode(errors="replace")).hexdigest()


def owner_of(request_id: str, caller: str, chosen: bool) -> str:
    """Whose an id is: empty for one that the gateway gave, else a hash of the client."""
    return caller_hash(request_id, caller) if chosen else ""


def record(connection: Connection, given: Sequence[Answer]) -> None:
    """Write answers, in one statement."""
    rows = []
    for each in given:
        row = {name: getattr(each, name) for name in _COPIED}
        row["captions"] = [dataclasses.asdict(caption) for caption in each.captions]
        rows.append(row)
    connection.execute(insert(answers), rows)


def find(
    connection: Connection,
    request_id: str,
    caller: str,
    picture_index: int,
    hours: float,
    now: float,
) -> Answer:
    """The answer that a feedback is about; the latest one, where a client used an id again.

    Args:
        connection: Of the database.
        request_id: Of the request.
        caller: Who gives the feedback.
        picture_index: Of the picture in the request.
        hours: How long an answer may be rated.
        now: In seconds since 1970.

    Raises:
        OpinionRefused: There is no such answer (`unknown_request`, `unknown_picture`), or it is too
            old (`expired`).
    """
    own = caller_hash(request_id, caller)
    of_request = (answers.c.request_id == request_id) & answers.c.owner.in_(["", own])
    found = connection.execute(
        select(answers)
        .where(of_request, answers.c.picture_index == picture_index)
        .order_by(answers.c.id.desc())
        .limit(1)
    ).first()
    made = made_at(request_id)
    if found is not None:
        made = found.answered
    if made is not None and 3600 * hours < now - made < 1e9:
        raise OpinionRefused(
            "expired",
            f"the request {request_id} was answered {(now - made) / 3600:.1f} hours ago; feedback "
            f"is taken for {hours:g} hours; caption the picture again",
        )
    if found is not None:
        captions = tuple(Served(**each) for each in found.captions)
        return Answer(**{**found._mapping, "captions": captions})
    count = connection.scalar(select(func.count()).select_from(answers).where(of_request))
    if count:
        raise OpinionRefused(
            "unknown_picture",
            f"picture_index is {picture_index}; the request {request_id} has {count} captioned "
            "pictures, numbered from 0 in the order of the request; an error has no feedback",
        )
    raise OpinionRefused(
        "unknown_request",
        f"no caption of the request {request_id} is known here; send the X-Request-Id of its "
        f"reply, within {hours:g} hours, as the client that got it",
    )


def prune(connection: Connection, hours: float, most: int, now: float) -> int:
    """Delete answers that are too old, and the oldest beyond a number.

    Args:
        connection: Of the database.
        hours: How long an answer may be rated.
        most: Answers to keep at most.
        now: In seconds since 1970.

    Returns:
        How many were deleted.
    """
    last = connection.scalar(select(func.max(answers.c.id))) or 0
    old = (answers.c.answered < now - 3600 * hours) | (answers.c.id <= last - most)
    return connection.execute(delete(answers).where(old)).rowcount


def storable(text: str) -> str:
    """Text as every database takes it: without the zero character, which PostgreSQL refuses."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def served(captions: Sequence[Any]) -> tuple[Served, ...]:
    """Captions of a reply: objects with `caption`, `confidence` and `quality`."""
    return tuple(
        Served(storable(each.caption), _finite(each.confidence), each.quality) for each in captions
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


_COPIED = tuple(
    field.name for field in dataclasses.fields(Answer) if field.name not in ("id", "captions")
)
