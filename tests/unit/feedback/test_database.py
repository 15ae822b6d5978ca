"""The tables of feedback: made, changed, refused; in SQLite and in PostgreSQL."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from feedback import schema
from feedback.__main__ import main
from feedback.answers import Answer, Served, record
from feedback.database import described, open_database, read_url, reading, writing
from feedback.errors import DatabaseRefused
from feedback.reading import counts
from feedback.tables import METADATA, REVISION
from tests import ROOT


def test_from_nothing_and_once_only(database: str):
    engine = open_database(database, create=True)
    assert schema.upgrade(engine)
    assert not schema.upgrade(engine)
    schema.check(engine)
    with reading(engine) as connection:
        assert counts(connection).feedback == 0
    engine.dispose()


def test_from_the_step_before_nothing_is_lost(database: str):
    engine = open_database(database, create=True)
    before = schema.known()[schema.known().index(REVISION) - 1]
    schema.upgrade(engine, before)
    row = {
        "answer_id": 7, "caption_index": 0, "caller": "c", "request_id": "r", "picture_index": 0,
        "given": 2.0, "answered": 1.0, "model": "clipcap", "version": "1.0", "caption": "a dog",
        "confidence": 0.5, "quality": None, "thumbs": -1, "correction": "a cat",
    }  # fmt: skip
    names = ", ".join(row)
    with writing(engine) as connection:
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO feedback ({names}) VALUES ({values})"), row)
    with pytest.raises(DatabaseRefused, match=f"tables of the version {before}; .* upgrade"):
        schema.check(engine)
    assert schema.upgrade(engine)
    with reading(engine) as connection:
        found = connection.execute(text(f"SELECT {names}, picture FROM feedback")).one()
    assert dict(found._mapping) == {**row, "picture": None}
    engine.dispose()


def test_several_that_start_at_once_make_the_tables_once(database: str):
    code = (
        "import sys; from feedback import schema; from feedback.database import open_database\n"
        "print(schema.upgrade(open_database(sys.argv[1], create=True)))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, database], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = sorted(each.communicate(timeout=60)[0].strip() for each in started)
    assert said == ["False", "False", "True"]


def test_a_newer_database_is_refused(database: str):
    engine = open_database(database, create=True)
    schema.upgrade(engine)
    with writing(engine) as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0999'"))
    for refusing in (schema.upgrade, schema.check):
        with pytest.raises(DatabaseRefused, match="the version 0999, which a newer program made"):
            refusing(engine)
    engine.dispose()


def test_the_last_step_is_the_one_that_the_tables_are_of():
    steps = ScriptDirectory(str(schema.MIGRATIONS))
    assert steps.get_current_head() == REVISION
    assert schema.known() == sorted(each.revision for each in steps.walk_revisions())


def test_the_migrations_make_the_tables_that_the_code_has(database: str):
    engine = open_database(database, create=True)
    schema.upgrade(engine)
    with engine.connect() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "cannot be read; write sqlite:///FILE or postgresql://"),
        ("mysql://me:secret@host/db", "begins with 'mysql'; write sqlite"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////proc/none/feedback.db", "cannot be used as a database: "),
    ],
)
def test_a_url_that_cannot_be_used(url: str, message: str):
    with pytest.raises(DatabaseRefused, match=message) as raised:
        open_database(url, create=True)
    assert "secret" not in str(raised.value)


def test_a_password_is_never_shown():
    url = read_url("postgresql://me:secret@host:5433/db")
    assert described(url) == "postgresql://me:***@host:5433/db"


def test_a_sqlite_file_is_for_its_owner(tmp_path: Path):
    file = tmp_path / "deep" / "feedback.db"
    schema.upgrade(open_database(f"sqlite:///{file}", create=True))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(DatabaseRefused, match="does not exist; a gateway makes it"):
        open_database(f"sqlite:///{tmp_path / 'none.db'}")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys):
    other = tmp_path / "notes.txt"
    other.write_text("this is no database at all")
    assert main(["status", "--database", f"sqlite:///{other}"]) == 1
    assert capsys.readouterr().err == f"error: {other} is no SQLite database; give another file\n"
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    open_database(empty, create=True).dispose()
    assert main(["status", "--database", empty]) == 1
    assert "has no tables of feedback" in capsys.readouterr().err
    assert main(["upgrade", "--database", empty]) == 0
    assert main(["status", "--database", empty]) == 0
    pytest.importorskip("psycopg")
    assert main(["status", "--database", "postgresql://me:secret@127.0.0.1:1/db"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: postgresql://me:***@127.0.0.1:1/db cannot be used: ")
    assert said.count("\n") == 1


def test_a_lock_of_sqlite_is_waited_for_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("feedback.database.LOCK_SECONDS", 0.1)
    engine = open_database(f"sqlite:///{tmp_path / 'feedback.db'}", create=True)
    schema.upgrade(engine)
    with writing(engine), reading(engine) as connection:
        assert counts(connection).feedback == 0  # a reader does not wait for the writer
        with pytest.raises(OperationalError, match="locked"), writing(engine):
            pass


def test_what_another_program_deletes_is_gone_after_a_second_look(tmp_path: Path):
    """To open and close the file beside SQLite would end its locks, and the two would part."""
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    engine = open_database(url, create=True)
    schema.upgrade(engine)
    answer = Answer("r", "", 0, time.time(), "clipcap", "1.0", (Served("a dog", 0.5),), "0" * 64)
    with writing(engine) as connection:
        record(connection, [answer])
    with reading(engine) as connection:
        open_database(url)
        assert counts(connection).answers == 1
    words = [sys.executable, "-m", "feedback", "delete", "--database", url, "r"]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with reading(engine) as connection:
        assert counts(connection).answers == 0
