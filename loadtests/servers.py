"""The servers of a run: TorchServe and the gateway on free ports, in a folder of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from deploy.gateway import Gateway
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key


@dataclasses.dataclass(frozen=True)
class Servers:
    """Servers that run.

    Attributes:
        address: Where requests are sent: the gateway, or TorchServe if it runs alone.
        torchserve: The TorchServe.
        keys: Name of each client -> its key; empty without a gateway.
        processes: `gateway`, `worker` and `java` -> the processes at the start.
    """

    address: str
    torchserve: TorchServe
    keys: Mapping[str, str]
    processes: Mapping[str, list[psutil.Process]]

    def survived(self) -> bool:
        """Whether all of these processes still run, and the workers are the same ones."""
        workers = [each.pid for each in self.processes["worker"]]
        same = self.torchserve.workers() == workers
        return same and all(
            each.is_running() for found in self.processes.values() for each in found
        )


@contextlib.contextmanager
def running(
    folder: Path, archive: Path, clients: Iterable[str], *, gateway: bool
) -> Iterator[Servers]:
    """Start servers, and stop them after the `with` block.

    Args:
        folder: For their state and logs.
        archive: The `.mar` file to serve.
        clients: Names of the gateway's clients; each gets a key.
        gateway: Whether there is a gateway.

    Raises:
        ServeError: A server does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = derived_config(folder / "config.properties", on_free_ports())
    server = TorchServe(folder / "torchserve", archive.resolve(), config)
    with contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        address, keys = server.rest, {}
        main = server.process()
        assert main is not None
        workers = [psutil.Process(pid) for pid in server.workers()]
        processes = {"worker": workers, "java": [main]}
        if gateway:
            private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipcap-")))
            keys = {name: add_key(private / "keys", name) for name in clients}
            settings = {"PORT": str(_free_port()), "KEYS": str(private / "keys")}
            with _settings(settings):
                front = Gateway(server, folder / "gateway")
                check = front.check()
                processes["gateway"] = [front.start(check)]
                address = check.address
            stack.callback(front.stop)
        yield Servers(address, server, keys, processes)


@contextlib.contextmanager
def _settings(settings: Mapping[str, str]) -> Iterator[None]:
    """Give the gateway that is started within the block these settings, and none of the user's."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("GATEWAY_")}
    given = {f"GATEWAY_{name}": value for name, value in settings.items()}
    try:
        for name in kept:
            del os.environ[name]
        os.environ.update(given)
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
        os.environ.update(kept)


def _free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
