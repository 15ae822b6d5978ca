"""What Alembic runs for each command: the steps, within the transaction of `feedback.schema`."""

from __future__ import annotations

from alembic import context

from feedback.schema import VERSION_TABLE
from feedback.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
context.run_migrations()
