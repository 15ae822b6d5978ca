"""TorchServe and the gateway of one case, with a folder, ports and settings of their own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

from deploy.gateway import Gateway
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe

#: Settings of the gateway beside those of a case. TorchServe is loaded in some seconds, but in
#: more on a busy machine.
SETTINGS = {"GATEWAY_RESTART_SECONDS": "50"}


class Serving:
    """A running TorchServe and the gateway in front of it.

    Args:
        folder: For state, logs and configuration; it is made if there is none.
        archive: The `.mar` file.
        environment: Variables of both servers, such as `GATEWAY_*`.

    Attributes:
        server: The TorchServe.
        gateway: The gateway.
        process: The process of the gateway that was started last.
    """

    def __init__(self, folder: Path, archive: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = derived_config(folder / "config.properties", on_free_ports())
        self.server = TorchServe(folder.resolve(), archive.resolve(), config.resolve())
        self.gateway = Gateway(self.server, self.server.folder / "gateway")
        self.process: psutil.Process | None = None
        self._environment = {**SETTINGS, "GATEWAY_PORT": str(_free_port()), **environment}

    @property
    def address(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self._environment['GATEWAY_PORT']}"

    def start(self) -> None:
        """Start both.

        Raises:
            ServeError: One of them does not start; neither runs then.
        """
        self.start_torchserve()
        try:
            self.start_gateway()
        except BaseException:
            self.server.stop()
            raise

    def start_torchserve(self) -> None:
        """Start TorchServe and wait for its workers.

        Raises:
            ServeError: It does not start.
        """
        with _environment(self._environment):
            self.server.start()

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers.

        Raises:
            ServeError: It does not start.
        """
        with _environment(self._environment):
            self.process = self.gateway.start(self.gateway.check())

    def stop(self) -> None:
        """End both, the gateway first."""
        self.gateway.stop()
        self.server.stop()

    def get(self, path: str) -> httpx.Response:
        """Ask the gateway something about itself, such as `/readyz`."""
        return httpx.get(f"{self.address}{path}", timeout=60, trust_env=False)

    def metric(self, name: str) -> float:
        """The value of a metric of the gateway that has no labels."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Give processes that are started in the `with` block these variables.

    The `GATEWAY_*` variables of the user are left out: the cases have settings of their own.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith("GATEWAY_"):
            del os.environ[name]
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
