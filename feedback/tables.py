"""The tables. `migrations/` makes them; `REVISION` is the step that they are of.

`answers` has a row for each picture that was captioned lately. Old rows are deleted, whether or not
somebody has said something about them, so a row of `feedback` has a copy of the caption.

Pictures lie in the database and not in a folder beside it: then several gateways on several
machines share them, a backup is whole, and a feedback and its picture are deleted together.

Times are seconds since 1970, UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

#: The last step of `migrations/`, by which a database is known to have these tables.
REVISION = "0002"
#: SQLite numbers rows by itself only in a column of this very type.
BIG = BigInteger().with_variant(Integer(), "sqlite")

METADATA = MetaData()

answers = Table(
    "answers",
    METADATA,
    Column("id", BIG, primary_key=True),  # never given twice
    Column("request_id", String(128), nullable=False),
    # Hash of the client for an id that a client chose; empty for one that the gateway gave.
    Column("owner", String(64), nullable=False),
    Column("picture_index", Integer, nullable=False),
    Column("answered", Float, nullable=False),
    Column("model", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    # [{"caption", "confidence", "quality" or null}], best first
    Column("captions", JSON, nullable=False),
    Column("sha256", String(64), nullable=False),  # of the picture file, in hex
    Index("answers_by_request", "request_id", "owner", "picture_index"),
    Index("answers_by_time", "answered"),
    sqlite_autoincrement=True,
)

pictures = Table(
    "pictures",
    METADATA,
    Column("sha256", String(64), primary_key=True),  # of `content`, in hex
    Column("size", Integer, nullable=False),  # of `content`, in bytes
    Column("content", LargeBinary, nullable=False),  # the picture file
)

feedback = Table(
    "feedback",
    METADATA,
    Column("id", BIG, primary_key=True),
    Column("answer_id", BIG, nullable=False),
    Column("caption_index", Integer, nullable=False),
    Column("caller", String(64), nullable=False),  # hash of the client, another for each request
    Column("request_id", String(128), nullable=False),
    Column("picture_index", Integer, nullable=False),
    Column("given", Float, nullable=False),  # when the feedback came
    Column("answered", Float, nullable=False),  # when the caption was given
    Column("model", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("caption", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("quality", Float),
    Column("thumbs", SmallInteger),  # 1 up, -1 down, null for none
    Column("correction", Text),
    Column("picture", String(64), ForeignKey("pictures.sha256", name="feedback_picture")),
    UniqueConstraint("answer_id", "caption_index", "caller", name="feedback_once"),
    Index("feedback_by_time", "answered"),
    Index("feedback_by_request", "request_id"),
    Index("feedback_by_given", "given"),
    Index("feedback_by_picture", "picture"),
    sqlite_autoincrement=True,
)
