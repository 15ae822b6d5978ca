"""Pictures that people leave to train on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their table, and let a feedback name one."""
    op.create_table(
        "pictures",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    # SQLite cannot add a foreign key, so there the table is copied.
    kept = {"sqlite_autoincrement": True}
    with op.batch_alter_table("feedback", table_kwargs=kept) as table:
        table.add_column(sa.Column("picture", sa.String(64)))
        table.create_foreign_key("feedback_picture", "pictures", ["picture"], ["sha256"])
    op.create_index("feedback_by_picture", "feedback", ["picture"])
