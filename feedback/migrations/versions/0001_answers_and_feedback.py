"""The tables of answers and of feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "answers",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("picture_index", sa.Integer, nullable=False),
        sa.Column("answered", sa.Float, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("captions", sa.JSON, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("answers_by_request", "answers", ["request_id", "owner", "picture_index"])
    op.create_index("answers_by_time", "answers", ["answered"])
    op.create_table(
        "feedback",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("answer_id", BIG, nullable=False),
        sa.Column("caption_index", sa.Integer, nullable=False),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("picture_index", sa.Integer, nullable=False),
        sa.Column("given", sa.Float, nullable=False),
        sa.Column("answered", sa.Float, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("caption", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("quality", sa.Float),
        sa.Column("thumbs", sa.SmallInteger),
        sa.Column("correction", sa.Text),
        sa.UniqueConstraint("answer_id", "caption_index", "caller", name="feedback_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_by_time", "feedback", ["answered"])
    op.create_index("feedback_by_request", "feedback", ["request_id"])
    op.create_index("feedback_by_given", "feedback", ["given"])
