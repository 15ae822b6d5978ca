"""The feedback of people: checked, added or replaced, within limits.

A client has one feedback on a caption: what it sends next takes the place of the earlier.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from feedback.answers import Answer, caller_hash, find
from feedback.errors import OpinionRefused
from feedback.tables import feedback, pictures

#: What a person may say of a caption -> how it is stored.
THUMBS = {"up": 1, "down": -1}
#: Unicode's categories of characters that no caption has: controls, halves of characters, and
#: separators of lines and paragraphs.
REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is taken.

    Attributes:
        hours: How long after its answer a caption may be rated.
        text: Most characters of a correction.
        rows: Most feedbacks in the database.
        bytes: Most bytes of all kept pictures together; 0 keeps none.
    """

    hours: float
    text: int
    rows: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Opinion:
    """What a client says of a caption.

    Attributes:
        request_id: Of the request that was answered with it.
        caller: Who says so.
        picture_index: Of the picture in the request, from 0.
        caption_index: Of the caption among those of the picture, from 0.
        thumbs: `up`, `down` or None.
        correction: A better caption, or None.
        picture: The picture file, to be kept and trained on; else None.
    """

    request_id: str
    caller: str
    picture_index: int = 0
    caption_index: int = 0
    thumbs: str | None = None
    correction: str | None = None
    picture: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Stored:
    """What became of an opinion.

    Attributes:
        caption: The text that it is about.
        replaced: Whether it took the place of an earlier one.
        picture_kept: Whether its picture is in the database.
    """

    caption: str
    replaced: bool
    picture_kept: bool


def check(opinion: Opinion, limits: Limits) -> None:
    """Refuse an opinion that cannot be taken, whatever was answered.

    Raises:
        OpinionRefused: It says nothing, its text is too long or has a control character, or it has
            a picture that is not kept.
    """
    if opinion.thumbs is None and opinion.correction is None:
        raise OpinionRefused(
            "nothing_said", "the feedback says nothing; send thumbs (up or down), or a correction"
        )
    if opinion.thumbs is not None and opinion.thumbs not in THUMBS:
        raise OpinionRefused(
            "bad_thumbs", f"thumbs is {opinion.thumbs[:40]!r}; it must be up or down"
        )
    if opinion.correction is not None:
        _check_text(opinion.correction, limits.text)
    if opinion.picture is None:
        return
    if not limits.bytes:
        raise OpinionRefused(
            "no_pictures", "this server keeps no pictures; send the feedback without the picture"
        )
    if opinion.correction is None and opinion.thumbs != "up":
        raise OpinionRefused(
            "no_use",
            "a picture is kept to train on, which needs a caption that is right; send a "
            "correction or thumbs up with it, or leave the picture out",
        )


def _check_text(text: str, longest: int) -> None:
    if not text.strip():
        raise OpinionRefused("bad_text", "the correction is empty; write a caption or leave it out")
    if len(text) > longest:
        raise OpinionRefused(
            "bad_text",
            f"the correction has {len(text)} characters; the limit is {longest}; shorten it",
        )
    for place, character in enumerate(text):
        if unicodedata.category(character) in REFUSED_CATEGORIES:
            raise OpinionRefused(
                "bad_text",
                f"character {place + 1} of the correction is U+{ord(character):04X}, a control "
                "character or line break; a caption is one line of text",
            )


def add(connection: Connection, opinion: Opinion, limits: Limits, now: float) -> Stored:
    """Write an opinion that `check` let pass.

    Args:
        connection: Of a transaction of `database.writing` with the lock `WRITERS`.
        opinion: What a client says.
        limits: What is taken.
        now: In seconds since 1970.

    Raises:
        OpinionRefused: Nothing like that was answered, the picture is not the one that was
            captioned, or the database holds as much as it may (`full`).
    """
    answer = find(
        connection, opinion.request_id, opinion.caller, opinion.picture_index, limits.hours, now
    )
    if opinion.caption_index >= len(answer.captions):
        raise OpinionRefused(
            "unknown_caption",
            f"caption_index is {opinion.caption_index}; the picture got {len(answer.captions)} "
            "captions, numbered from 0",
        )
    caller = caller_hash(opinion.request_id, opinion.caller)
    key = (
        (feedback.c.answer_id == answer.id)
        & (feedback.c.caption_index == opinion.caption_index)
        & (feedback.c.caller == caller)
    )
    before = connection.execute(select(feedback.c.id, feedback.c.picture).where(key)).first()
    if before is None and _count(connection) >= limits.rows:
        raise OpinionRefused(
            "full", f"{limits.rows} feedbacks are stored here, which is the limit; try much later"
        )
    sha256 = None
    if opinion.picture is not None:
        sha256 = _keep(connection, opinion.picture, answer, limits)
    values = _values(opinion, answer, caller, sha256, now)
    if before is None:
        connection.execute(insert(feedback).values(values))
    else:
        connection.execute(update(feedback).where(feedback.c.id == before.id).values(values))
        if before.picture not in (None, sha256):
            delete_unused(connection, [before.picture])
    caption = answer.captions[opinion.caption_index].caption
    return Stored(caption, before is not None, sha256 is not None)


def delete_unused(connection: Connection, hashes: list[str]) -> int:
    """Delete those of the pictures that no feedback names any more; return how many."""
    used = select(feedback.c.picture).where(feedback.c.picture.is_not(None))
    unused = pictures.c.sha256.in_(hashes) & pictures.c.sha256.not_in(used)
    return connection.execute(delete(pictures).where(unused)).rowcount


def _count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(feedback)) or 0


def _keep(connection: Connection, picture: bytes, answer: Answer, limits: Limits) -> str:
    """Write a picture, unless it is there; return its SHA-256."""
    sha256 = hashlib.sha256(picture).hexdigest()
    if sha256 != answer.sha256:
        raise OpinionRefused(
            "other_picture",
            f"the picture with the feedback has the SHA-256 {sha256}, and the one that was "
            f"captioned has {answer.sha256}; send the same file",
        )
    if connection.scalar(select(pictures.c.size).where(pictures.c.sha256 == sha256)) is None:
        held = connection.scalar(select(func.coalesce(func.sum(pictures.c.size), 0))) or 0
        if held + len(picture) > limits.bytes:
            raise OpinionRefused(
                "full",
                f"the pictures that are kept here have {held} bytes, and the limit is "
                f"{limits.bytes}; send the feedback without its picture, or try much later",
            )
        row = {"sha256": sha256, "size": len(picture), "content": picture}
        # Another gateway may have written the same picture meanwhile.
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(pictures).values(row).on_conflict_do_nothing())
    return sha256


def _values(
    opinion: Opinion, answer: Answer, caller: str, sha256: str | None, now: float
) -> dict[str, Any]:
    served = answer.captions[opinion.caption_index]
    return {
        "answer_id": answer.id,
        "caption_index": opinion.caption_index,
        "caller": caller,
        "request_id": opinion.request_id,
        "picture_index": opinion.picture_index,
        "given": now,
        "answered": answer.answered,
        "model": answer.model,
        "version": answer.version,
        "caption": served.caption,
        "confidence": served.confidence,
        "quality": served.quality,
        "thumbs": None if opinion.thumbs is None else THUMBS[opinion.thumbs],
        "correction": opinion.correction,
        "picture": sha256,
    }
