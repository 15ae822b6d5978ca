"""Runs a gateway on a port of its own, in front of a real TorchServe: here, or in a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.health import answers
from deploy.properties import ROOT
from deploy.torchserve import TorchServe
from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.listening.listener import bind
from gateway.listening.server import Server
from gateway.listening.tls import read_certificate
from gateway.measures import Measures
from gateway.settings import Settings


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def addresses_of(server: TorchServe) -> dict[str, str]:
    """Where a TorchServe is, under the names of the gateway's settings."""
    return {"inference": server.rest, "management": server.management, "metrics": server.metrics}


def settings_for(server: TorchServe, **changes: Any) -> Settings:
    """Settings of a gateway in front of this server."""
    return Settings(**{"port": free_port(), **addresses_of(server), **changes})


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The address of a gateway that runs within the `with` block."""
    measures = Measures()
    app = create_app(settings, TorchServeClient(settings), measures)
    gateway = Server(app, settings, measures, bind(settings), read_certificate(settings))
    thread = threading.Thread(target=gateway.run)
    thread.start()
    try:
        while not gateway.started:
            assert thread.is_alive(), "the gateway ended by itself"
            time.sleep(0.01)
        yield settings.address
    finally:
        gateway.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextlib.contextmanager
def process(
    log: Path, words: Sequence[str | Path] = (), **settings: Any
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m gateway` in a process of its own, and its address.

    Args:
        log: File for what it writes.
        words: Of its command line.
        settings: Names as in `Settings`; they become variables.
    """
    settings = {"port": free_port(), **settings}
    variables = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("w") as out:
        started = subprocess.Popen(
            [sys.executable, "-m", "gateway", *words],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    scheme = "https" if "tls_key" in settings else "http"
    address = f"{scheme}://127.0.0.1:{settings['port']}"
    try:
        while not answers(address):
            assert started.poll() is None, log.read_text()
            time.sleep(0.1)
        yield started, address
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
