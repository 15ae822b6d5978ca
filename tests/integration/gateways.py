"""Runs a gateway inside the tests' process, on a port of its own, in front of a real TorchServe."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from deploy.torchserve import TorchServe
from gateway.app import create_app
from gateway.settings import Settings


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_for(server: TorchServe, **changes: Any) -> Settings:
    """Settings of a gateway in front of this server."""
    return Settings(
        **{
            "port": free_port(),
            "inference": server.rest,
            "management": server.management,
            "metrics": server.metrics,
            **changes,
        }
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The address of a gateway that runs within the `with` block."""
    config = uvicorn.Config(
        create_app(settings), port=settings.port, log_config=None, access_log=False
    )
    gateway = uvicorn.Server(config)
    thread = threading.Thread(target=gateway.run)
    thread.start()
    try:
        while not gateway.started:
            assert thread.is_alive(), "the gateway ended by itself"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        gateway.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
