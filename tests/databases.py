"""An empty database of each kind, for tests of feedback: SQLite, and a PostgreSQL of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import Cluster, cluster, missing

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL for all tests of a process."""
    if reason := missing():
        pytest.skip(reason)
    with cluster() as made:
        yield made


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return empty_database(request.param, request, tmp_path)


def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database of a kind."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'feedback.db'}"
    made: Cluster = request.getfixturevalue("postgresql")
    return made.create(f"test_{uuid.uuid4().hex[:12]}")
