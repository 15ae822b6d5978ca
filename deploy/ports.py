"""TCP ports of this machine: which are free, and which program listens on the others."""

from __future__ import annotations

import contextlib
import errno
import socket
import urllib.parse
from pathlib import Path

import psutil

from deploy.errors import ServeError
from deploy.properties import ENDPOINTS, REST_ENDPOINTS, ports, read_properties


def check_ports(config: Path) -> None:
    """Refuse a configuration if another program listens on one of its ports.

    Args:
        config: A `config.properties`.

    Raises:
        ServeError: A port is in use; the message names it, the program and the setting.
        OSError: The file cannot be read.
    """
    for name, port in ports(config).items():
        if not _is_free(port):
            raise ServeError(
                f"port {port} is in use{_owner(port)}; stop that program, or give "
                f"{name} another port in {config.name}"
            )


def check_address(address: str, setting: str) -> None:
    """Refuse an address that a program of this machine cannot listen on.

    Args:
        address: Such as `http://127.0.0.1:8000`.
        setting: The setting of its port, for the message.

    Raises:
        ServeError: The port is in use, or the host is not of this machine; the message names the
            setting.
    """
    url = urllib.parse.urlsplit(address)
    host, port = str(url.hostname), int(url.port or 0)
    try:
        family, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServeError(
                f"port {port} is in use{_owner(port)}; stop that program, or set {setting} to "
                "another port"
            ) from None
        raise ServeError(f"{setting}: nothing can listen on {host}:{port}: {error}") from None


def on_free_ports() -> dict[str, str]:
    """Changes for `derived_config` that give every endpoint a port that is free now."""
    with contextlib.ExitStack() as stack:
        free = []
        for _ in ENDPOINTS:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            free.append(listener.getsockname()[1])
    return {
        name: f"http://127.0.0.1:{port}" if name in REST_ENDPOINTS else str(port)
        for name, port in zip(ENDPOINTS, free, strict=True)
    }


def beside(config: Path) -> dict[str, str]:
    """Changes for `derived_config` with which a second server runs beside other programs.

    Every endpoint keeps its port if that is free. Otherwise it gets the next higher one that is.

    Args:
        config: A `config.properties`.

    Raises:
        ServeError: There is no free port above one of those of the configuration.
        OSError: The file cannot be read.
    """
    properties = read_properties(config)
    changes: dict[str, str] = {}
    given: set[int] = set()
    for name, port in ports(config).items():
        free = next((n for n in range(port, 1 << 16) if n not in given and _is_free(n)), None)
        if free is None:
            raise ServeError(f"{config.name}: no port from {name}={port} on is free; give another")
        given.add(free)
        changes[name] = f"{properties[name].removesuffix(str(port))}{free}"
    return changes


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    """The program that listens there, or nothing where this user may not see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""
