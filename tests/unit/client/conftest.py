"""A captioner's peer that tests control, and retries without their pauses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import client.retries
from tests.picture_peer import Peer, picture_peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """An HTTP server that answers as the test says."""
    with picture_peer() as found:
        yield found


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent again is sent at once."""
    monkeypatch.setattr(client.retries, "FIRST_PAUSE", 0.001)
