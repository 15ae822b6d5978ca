"""Brings the tables of a database to this version, by Alembic; refuses a newer database.

Several gateways may start at once: the first one holds a lock while it changes the tables, and the
others wait and find them changed.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from feedback.database import MIGRATION, described, writing
from feedback.errors import DatabaseRefused
from feedback.tables import REVISION

MIGRATIONS = Path(__file__).with_name("migrations")
#: Where Alembic notes the step that a database is at. The name leaves its usual one to others.
VERSION_TABLE = "feedback_revision"


def upgrade(engine: Engine, to: str = REVISION) -> bool:
    """Make or change the tables, unless they are of this version already.

    Args:
        engine: Of the database.
        to: The step to go to.

    Returns:
        Whether anything was changed.

    Raises:
        DatabaseRefused: A newer version of this program has changed the tables.
        DBAPIError: The database cannot be reached.
    """
    with engine.connect() as connection:
        if revision(connection) == to:
            return False
    with writing(engine) as connection:  # SQLite has one writer at a time, which is its lock
        if engine.dialect.name == "postgresql":
            # To change a table of many rows may take longer than any other statement may.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION})
        found = revision(connection)
        if found == to:
            return False
        _check_known(engine, found)
        _run(connection, to)
    return True


def check(engine: Engine) -> None:
    """Refuse a database whose tables are not of this version, and change nothing.

    Raises:
        DatabaseRefused: They are older, newer, or not there.
        DBAPIError: The database cannot be reached.
    """
    with engine.connect() as connection:
        found = revision(connection)
    if found == REVISION:
        return
    _check_known(engine, found)
    has = f"tables of the version {found}" if found else "no tables of feedback"
    raise DatabaseRefused(
        f"{described(engine.url)} has {has}; this program reads {REVISION}; make or change them: "
        "python -m feedback upgrade"
    )


def revision(connection: Connection) -> str | None:
    """The step that a database is at; None if it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def known() -> list[str]:
    """The steps that this program knows, in order."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("0*.py"))


def _check_known(engine: Engine, found: str | None) -> None:
    if found is not None and found not in known():
        raise DatabaseRefused(
            f"{described(engine.url)} has tables of the version {found[:40]}, which a newer "
            f"program made; this one knows {REVISION} and older; start the newer program, or give "
            "another database"
        )


def _run(connection: Connection, to: str) -> None:
    # Loaded only when there is something to do: it takes a third of a second.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
