"""Settings of the gateway, read from `GATEWAY_*` environment variables and checked at the start."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import httpx

PREFIX = "GATEWAY_"


class SettingsError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the gateway listens on, where TorchServe is, and the limits.

    The environment variable of each is its name in capitals after `GATEWAY_`.

    Attributes:
        host: Address to listen on. Any address other than a loopback one needs `keys` or `open`.
        port: TCP port to listen on.
        inference: TorchServe's address for captions.
        management: TorchServe's address for the state of workers and the model's description.
        metrics: TorchServe's address for metrics.
        model: Name of the model in TorchServe.
        keys: File of hashed API keys; `python -m gateway.key` adds one. Without it no key is asked
            for.
        open: Whether an address other than loopback is served without keys.
        cors_origins: Origins whose web pages may call the gateway, separated by commas.
        max_body_bytes: Most bytes of a request.
        max_picture_bytes: Most bytes of one picture; at most TorchServe's `max_request_size`.
        max_in_flight: Most pictures that wait in TorchServe at a time; more are answered with 503.
        deadline_seconds: Seconds until a request gets its answer, or 504. The handler has a
            deadline of its own, which should be shorter.
        restart_seconds: Seconds that a request waits for a TorchServe that does not listen.
        body_seconds: Seconds in which a client must have sent its request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    inference: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    metrics: str = "http://127.0.0.1:8082"
    model: str = "clipcap"
    keys: Path | None = None
    open: bool = False
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 << 20
    max_picture_bytes: int = 20_900_000
    max_in_flight: int = 64
    deadline_seconds: float = 65.0
    restart_seconds: float = 10.0
    body_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check values and their combination.

        Raises:
            SettingsError: A value is out of range, or a network address has no keys.
        """
        if not 0 < self.port < 1 << 16:
            raise _refusal("port", self.port, "a whole number from 1 to 65535")
        for name in ("inference", "management", "metrics"):
            _check_url(name, getattr(self, name))
        for name in ("max_body_bytes", "max_picture_bytes", "max_in_flight"):
            if getattr(self, name) < 1:
                raise _refusal(name, getattr(self, name), "a whole number above 0")
        for name in ("deadline_seconds", "restart_seconds", "body_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise _refusal(name, getattr(self, name), "a number of seconds above 0")
        if not self.model or "/" in self.model:
            raise _refusal("model", self.model, "the name of a model, without /")
        for origin in self.cors_origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest:
                raise _refusal("cors_origins", origin, "origins such as https://example.org")
        if not self.is_loopback and self.keys is None and not self.open:
            raise SettingsError(
                f"{PREFIX}HOST is {self.host}, which other machines can reach; give a file of keys "
                f"with {PREFIX}KEYS (python -m gateway.key makes one), or {PREFIX}OPEN=true to "
                "serve everybody"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach the gateway."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def address(self) -> str:
        """Where programs of this machine reach the gateway, such as `http://127.0.0.1:8000`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings.

        Args:
            environment: Variables; those that do not begin with `GATEWAY_` are ignored.

        Raises:
            SettingsError: A variable is unknown or has a value that cannot be used.
        """
        kinds = get_type_hints(cls)
        given: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in kinds or variable != variable.upper():
                known = ", ".join(PREFIX + each.upper() for each in kinds)
                raise SettingsError(f"{variable} is not a setting; known: {known}")
            given[name] = _parse(name, text.strip(), kinds[name])
        return cls(**given)


def _parse(name: str, text: str, kind: Any) -> Any:
    """The value of a setting from its text."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise _refusal(name, text, "true or false")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "whole number" if kind is int else "number"
            raise _refusal(name, text, f"a {noun}") from None
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == (Path | None):
        return Path(text) if text else None
    return text


def _check_url(name: str, text: str) -> None:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
        raise _refusal(name, text, "an address such as http://127.0.0.1:8080")


def _refusal(name: str, value: object, wanted: str) -> SettingsError:
    return SettingsError(f"{PREFIX}{name.upper()} is {str(value)[:80]!r}; it must be {wanted}")
