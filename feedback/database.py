"""Opens a database by its URL: SQLite or PostgreSQL, with the settings that both need here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from feedback.errors import DatabaseRefused

#: Seconds to connect, to wait for another writer, and for one statement.
CONNECT_SECONDS, LOCK_SECONDS, STATEMENT_SECONDS = 3, 5, 20
#: What a URL may look like, for messages.
FORMS = "sqlite:///FILE or postgresql://USER@HOST:PORT/NAME"
#: Names of the databases in a URL -> how SQLAlchemy calls them with their driver.
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
#: Marks a connection that writes.
_WRITES = "writes"
#: Keys of PostgreSQL's locks: of those who write feedback, and of those who change tables.
WRITERS, MIGRATION = 0x636C6970, 0x636C6971


def read_url(given: str) -> URL:
    """A URL, with the driver that is used here.

    Raises:
        DatabaseRefused: It is none of the two forms. No part of it is shown: it may be a password.
    """
    try:
        url = make_url(given)
    except ArgumentError:
        raise DatabaseRefused(f"the URL of the database cannot be read; write {FORMS}") from None
    name = url.drivername.partition("+")[0]
    if name not in DRIVERS:
        raise DatabaseRefused(f"the URL of the database begins with {name[:40]!r}; write {FORMS}")
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise DatabaseRefused(f"the URL of the database names no file; write {FORMS}")
    return url.set(drivername=DRIVERS[name])


def described(url: URL) -> str:
    """A URL for messages and logs, without its password."""
    return url.render_as_string(hide_password=True).replace("+psycopg", "")


def open_database(given: str, *, create: bool = False) -> Engine:
    """An engine for a URL; a connection is made only when it is used.

    Args:
        given: The URL.
        create: Whether a SQLite file and its folder are made if they are missing.

    Raises:
        DatabaseRefused: The URL cannot be used, the driver is missing, or there is no such file.
    """
    url = read_url(given)
    options: dict[str, Any] = {}
    if url.drivername == "sqlite":
        file = Path(str(url.database))
        _check_file(file, create)
        options["connect_args"] = {"timeout": LOCK_SECONDS}
    else:
        wanted = {
            "connect_timeout": str(CONNECT_SECONDS),
            "application_name": "clipcap-feedback",
            "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s",
        }
        url = url.update_query_dict({k: v for k, v in wanted.items() if k not in url.query})
        options |= {"pool_pre_ping": True, "pool_size": 2}
    try:
        engine = create_engine(url, **options)
    except ModuleNotFoundError:
        raise DatabaseRefused(
            "PostgreSQL is asked with psycopg, which is not installed; install it: "
            ".venv/bin/pip install -e '.[postgresql]' -c constraints.txt"
        ) from None
    except (ArgumentError, NoSuchModuleError, TypeError, ValueError) as error:
        raise DatabaseRefused(f"the URL of the database cannot be used: {error}") from None
    if url.drivername == "sqlite":
        _prepare_sqlite(engine)
    return engine


@contextmanager
def writing(engine: Engine, lock: int | None = None) -> Iterator[Connection]:
    """A transaction that writes. Of SQLite there is one at a time, and others wait for it.

    Args:
        engine: Of the database.
        lock: Key of a lock that PostgreSQL gives to one such transaction at a time.
    """
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        if lock is not None and engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that reads, row by row; it sees one state, and holds up no writer."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def reason(error: DBAPIError) -> str:
    """What a database said, in one line."""
    return " ".join(str(error.orig).split())[:300]


def _check_file(file: Path, create: bool) -> None:
    """Refuse a file that cannot be read and written.

    It is not opened: a program that closes a file loses its locks on it, also those of SQLite, and
    another program would then take the database for one that nobody uses.
    """
    try:
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Its owner alone may read what people wrote and the pictures that they left.
            file.touch(0o600)
    except OSError as error:
        raise DatabaseRefused(f"{file} cannot be used as a database: {error.strerror}") from None
    if not file.exists():
        raise DatabaseRefused(f"{file} does not exist; a gateway makes it when it starts")
    if not file.is_file():
        raise DatabaseRefused(f"{file} cannot be used as a database: it is no file")
    if not os.access(file, os.R_OK | os.W_OK):
        raise DatabaseRefused(f"{file} cannot be used as a database: this user may not write it")


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # else Python's module ends a transaction before DDL
        cursor = connection.cursor()
        # Readers and a writer do not wait for each other; a commit is safe when a program ends.
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error):
                raise
            file = engine.url.database
            raise DatabaseRefused(f"{file} is no SQLite database; give another file") from None
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that reads first and writes later could fail at once, without waiting.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
