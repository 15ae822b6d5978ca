"""`config.properties`: the settings of TorchServe, read, checked and derived."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import ServeError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config.properties"
REST_ENDPOINTS = ("inference_address", "management_address", "metrics_address")
GRPC_ENDPOINTS = ("grpc_inference_port", "grpc_management_port")
ENDPOINTS = (*REST_ENDPOINTS, *GRPC_ENDPOINTS)


def read_properties(file: Path) -> dict[str, str]:
    """Keys and values of a Java properties file, without its comments.

    Args:
        file: The file.

    Raises:
        OSError: The file cannot be read.
    """
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def sha256_of(file: Path) -> str:
    """SHA-256 of the keys and values of a configuration; comments and order do not count.

    Args:
        file: A `config.properties`.

    Raises:
        OSError: The file cannot be read.
    """
    return hashlib.sha256(repr(sorted(read_properties(file).items())).encode()).hexdigest()


def read_endpoints(file: Path) -> dict[str, str]:
    """Keys and values of a configuration that has every endpoint.

    Args:
        file: A `config.properties`.

    Raises:
        ServeError: An endpoint is missing.
        OSError: The file cannot be read.
    """
    properties = read_properties(file)
    if missing := [name for name in ENDPOINTS if name not in properties]:
        raise ServeError(f"{file} lacks {', '.join(missing)}; see {CONFIG.name}")
    return properties


def ports(file: Path) -> dict[str, int]:
    """The TCP port of each endpoint of a configuration, by the name of its key.

    Args:
        file: A `config.properties`.

    Raises:
        ServeError: An endpoint is missing or names no port.
        OSError: The file cannot be read.
    """
    properties = read_endpoints(file)
    return {name: _port(file, name, properties[name]) for name in ENDPOINTS}


def _port(file: Path, name: str, value: str) -> int:
    """The whole value for gRPC, the end of the address for REST."""
    grpc = name in GRPC_ENDPOINTS
    found = re.fullmatch(r"(\d+)" if grpc else r"https?://[^:/]+:(\d+)", value)
    if not found or not 0 < int(found.group(1)) < 1 << 16:
        wanted = "a port" if grpc else "http://HOST:PORT"
        raise ServeError(f"{file}: {name} is {value!r}; it must be {wanted}")
    return int(found.group(1))


def derived_config(out: Path, changes: Mapping[str, str], config: Path = CONFIG) -> Path:
    """Write a copy of a configuration with some values changed.

    Args:
        out: The file to write.
        changes: Keys and their new values.
        config: The configuration to copy.

    Returns:
        `out`.
    """
    properties = {**read_properties(config), **changes}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return out
