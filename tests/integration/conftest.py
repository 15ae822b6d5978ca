"""A real TorchServe for the whole test run, on ports of its own, with a tiny captioner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from loadtests.chaos.faulty_archive import make_faulty
from tests.integration.gateways import running, settings_for
from tests.integration.one_machine import other_checkpoint, root, run  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def serve(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Path], TorchServe]]:
    """Starts a server of an archive; all of them are stopped after the test run."""
    with contextlib.ExitStack() as started:

        def start(archive: Path) -> TorchServe:
            folder = tmp_path_factory.mktemp("torchserve")
            config = derived_config(folder / "config.properties", on_free_ports())
            torchserve = TorchServe(folder, archive, config)
            torchserve.start()
            started.callback(torchserve.stop)
            return torchserve

        yield start


@pytest.fixture(scope="session")
def server(tiny_archive: Path, serve: Callable[[Path], TorchServe]) -> TorchServe:
    """The server, with its workers ready."""
    return serve(tiny_archive)


@pytest.fixture(scope="module")
def gateway(server: TorchServe) -> Iterator[str]:
    """The address of a gateway in front of the server, with the usual settings."""
    with running(settings_for(server)) as address:
        yield address


@pytest.fixture(params=["torchserve", "gateway"])
def address(request: pytest.FixtureRequest, server: TorchServe, gateway: str) -> str:
    """Where a test asks: TorchServe itself, then the gateway in front of it."""
    return server.rest if request.param == "torchserve" else gateway


@pytest.fixture(scope="session")
def deadly(
    tiny_archive: Path,
    serve: Callable[[Path], TorchServe],
    tmp_path_factory: pytest.TempPathFactory,
) -> TorchServe:
    """A server whose worker some options end, and others make slow."""
    return serve(make_faulty(tiny_archive, tmp_path_factory.mktemp("deadly")))


@pytest.fixture(autouse=True)
def _same_workers(server: TorchServe) -> Iterator[None]:
    """Whatever a test sends, the workers are the same processes afterwards, and ready."""
    before = server.workers()
    assert before
    yield
    assert server.workers() == before
