"""A real TorchServe for the whole test run, on ports of its own, with a tiny captioner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe


@pytest.fixture(scope="session")
def server(tiny_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """The server, with its workers ready."""
    folder = tmp_path_factory.mktemp("torchserve")
    config = derived_config(folder / "config.properties", on_free_ports())
    torchserve = TorchServe(folder, tiny_archive, config)
    torchserve.start()
    yield torchserve
    torchserve.stop()


@pytest.fixture(autouse=True)
def _same_workers(server: TorchServe) -> Iterator[None]:
    """Whatever a test sends, the workers are the same processes afterwards, and ready."""
    before = server.workers()
    assert before
    yield
    assert server.workers() == before
