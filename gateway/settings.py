"""Settings of the gateway: from `GATEWAY_*` environment variables and TOML files, checked.

`gateway/reload.py` says which of them a running gateway takes over.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import httpx

PREFIX = "GATEWAY_"
#: Pictures of a captioner that is tried out whose failures are counted together.
WINDOW = 100
#: The variable that names a file of settings.
FILE_VARIABLE = f"{PREFIX}SETTINGS"


class SettingsError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""


class ValueRefused(SettingsError):
    """A setting with a value that cannot be used.

    Attributes:
        name: Of the setting.
        problem: What is wrong with it.
    """

    def __init__(self, name: str, problem: str) -> None:
        """Build the error; the message names the variable of the setting."""
        super().__init__(f"{PREFIX}{name.upper()} {problem}")
        self.name = name
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the gateway listens on, where TorchServe is, and the limits.

    The environment variable of each is its name in capitals after `GATEWAY_`. In a TOML file it is
    the name itself, at the top level: `port = 9000`.

    Attributes:
        host: Address to listen on. Any address other than a loopback one needs `keys` or `open`.
        port: TCP port to listen on.
        inference: TorchServe's address for captions.
        management: TorchServe's address for the state of workers and the model's description.
        metrics: TorchServe's address for metrics.
        candidate_inference: Address for captions of a second TorchServe, whose captioner is tried
            out; empty for none. It serves the model under the same name.
        candidate_management: Its address for the state of workers.
        candidate_metrics: Its address for metrics.
        candidate_share: Percent of the requests that it gets, 0 to 100. With 0 it gets those that
            name it: `X-Captioner: candidate`.
        candidate_shadow: Whether it gets a copy of them, so that its captions are compared with
            those of users and thrown away.
        candidate_failures: After so many failures in its last 100 pictures it gets nothing more.
        candidate_seconds: Seconds that it may take for a picture before the other captioner is
            asked; at most half of the time that is left.
        model: Name of the model in TorchServe.
        keys: File of hashed API keys; `python -m gateway.key` adds one. Without it no key is asked
            for.
        open: Whether an address other than loopback is served without keys.
        cors_origins: Origins whose web pages may call the gateway, separated by commas.
        max_body_bytes: Most bytes of a request.
        max_picture_bytes: Most bytes of one picture; at most TorchServe's `max_request_size`.
        max_in_flight: Most pictures that are here and in TorchServe at a time; more are answered
            with 503. A client may have as many as places are free: one that is alone gets half.
        max_at_once: Most pictures in TorchServe at a time: twice the batch size of its workers
            keeps them busy. TorchServe's `job_queue_size` must not be smaller. The others wait
            here, where clients take turns.
        rate: Pictures a second that one client may send in the long run; more are answered with
            429. 0 for no limit. A line of the file of keys may name another rate.
        burst: Pictures that a client may send at once after a pause.
        deadline_seconds: Seconds until a request gets its answer, or 504. The handler has a
            deadline of its own, which should be shorter.
        restart_seconds: Seconds that a request waits for a TorchServe that does not listen.
        body_seconds: Seconds in which a client must have sent its request.
        fetch_urls: Whether pictures are fetched by URL, from public addresses on ports 80 and 443.
        fetch_seconds: Seconds in which a picture must have been fetched, redirects included.
        fetch_redirects: Most redirects of a URL.
        fetch_allowed_networks: Networks such as `10.1.0.0/16` whose addresses are asked too, on any
            port; separated by commas.
        max_bodies_bytes: Most bytes of all requests that are in memory together; more are answered
            with 503. See `gateway/access/bodies.py` for what a byte costs.
        max_connections: Most connections at a time; more are answered with 503, or closed if TLS is
            spoken.
        head_seconds: Seconds in which a connection must send the head of a request, from its
            beginning or its last answer. The handshake of TLS may take as long before that.
        drift_captures: Folder that the handler captures to; `/drift` reports on it. Without it
            there is no such path.
        drift_checkpoint: Checkpoint folder of the captioner, if it is not the one trained here or
            the one that ships.
        drift_seconds: Seconds that a report may take.
        tls_certificate: PEM file of the certificate and its chain; TLS is spoken with it.
        tls_key: PEM file of its key, without a passphrase.
        feedback: Database of what people think of captions, `sqlite:///FILE` or
            `postgresql://USER@HOST:PORT/NAME`; empty to take no feedback. See docs/feedback.md.
        feedback_hours: How long after its answer a caption may be rated.
        feedback_answers: Most captioned pictures that may be rated; the oldest are forgotten.
        feedback_text: Most characters of a better caption.
        feedback_rows: Most feedbacks in the database; more are refused.
        feedback_picture_bytes: Most bytes of all pictures together that people leave to train on;
            0 to keep no picture.
        feedback_days: How long a feedback and its picture are kept.
        feedback_rate: Feedbacks a second that one client may send in the long run; more are
            answered with 429. 0 for no limit.
        feedback_burst: Feedbacks that a client may send at once after a pause.
        json_log: Whether each line of the log is a JSON object; see `gateway/telemetry/log.py`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    inference: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    metrics: str = "http://127.0.0.1:8082"
    candidate_inference: str = ""
    candidate_management: str = ""
    candidate_metrics: str = ""
    candidate_share: float = 10.0
    candidate_shadow: bool = False
    candidate_failures: int = 5
    candidate_seconds: float = 10.0
    model: str = "clipcap"
    keys: Path | None = None
    open: bool = False
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 << 20
    max_picture_bytes: int = 20_900_000
    max_in_flight: int = 128
    max_at_once: int = 32
    rate: float = 0.0
    burst: float = 60.0
    deadline_seconds: float = 65.0
    restart_seconds: float = 10.0
    body_seconds: float = 60.0
    fetch_urls: bool = False
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3
    fetch_allowed_networks: tuple[str, ...] = ()
    max_bodies_bytes: int = 256 << 20
    max_connections: int = 1500
    head_seconds: float = 10.0
    drift_captures: Path | None = None
    drift_checkpoint: Path | None = None
    drift_seconds: float = 60.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    feedback: str = ""
    feedback_hours: float = 24.0
    feedback_answers: int = 100_000
    feedback_text: int = 500
    feedback_rows: int = 1_000_000
    feedback_picture_bytes: int = 2 << 30
    feedback_days: float = 400.0
    feedback_rate: float = 1.0
    feedback_burst: float = 60.0
    json_log: bool = False

    def __post_init__(self) -> None:
        """Check values and their combination.

        Raises:
            SettingsError: A value is out of range, or a network address has no keys.
        """
        if not 0 < self.port < 1 << 16:
            raise _refusal("port", self.port, "a whole number from 1 to 65535")
        for name in ("inference", "management", "metrics"):
            _check_url(name, getattr(self, name))
        self._check_candidate()
        for name in (
            *("max_body_bytes", "max_picture_bytes", "max_in_flight", "max_at_once"),
            *("max_connections", "feedback_answers", "feedback_text", "feedback_rows"),
        ):
            if getattr(self, name) < 1:
                raise _refusal(name, getattr(self, name), "a whole number above 0")
        for name in (
            *("deadline_seconds", "restart_seconds", "body_seconds", "head_seconds"),
            *("fetch_seconds", "drift_seconds", "candidate_seconds"),
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise _refusal(name, getattr(self, name), "a number of seconds above 0")
        for prefix, things in (("", "pictures"), ("feedback_", "feedbacks")):
            rate, burst = getattr(self, f"{prefix}rate"), getattr(self, f"{prefix}burst")
            if not 0 <= rate < math.inf:
                wanted = f"a number of {things} a second, or 0 for no limit"
                raise _refusal(f"{prefix}rate", rate, wanted)
            if not 1 <= burst < math.inf:
                raise _refusal(f"{prefix}burst", burst, f"a number of {things} from 1")
        for name, unit in (("feedback_hours", "hours"), ("feedback_days", "days")):
            if not 0 < getattr(self, name) < 1e6:
                raise _refusal(name, getattr(self, name), f"a number of {unit} above 0")
        if self.feedback_picture_bytes < 0:
            wanted = "a number of bytes, or 0 to keep no picture"
            raise _refusal("feedback_picture_bytes", self.feedback_picture_bytes, wanted)
        if self.max_bodies_bytes < self.max_body_bytes:
            least = f"at least {PREFIX}MAX_BODY_BYTES, which is {self.max_body_bytes}"
            raise _refusal("max_bodies_bytes", self.max_bodies_bytes, least)
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise ValueRefused(missing, "is not given; a certificate and its key go together")
        if not self.model or "/" in self.model:
            raise _refusal("model", self.model, "the name of a model, without /")
        for origin in self.cors_origins:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest:
                raise _refusal("cors_origins", origin, "origins such as https://example.org")
        self._check_fetching()
        if not self.is_loopback and self.keys is None and not self.open:
            raise ValueRefused(
                "host",
                f"is {self.host}, which other machines can reach; give a file of keys with "
                f"{PREFIX}KEYS (python -m gateway.key makes one), or {PREFIX}OPEN=true to serve "
                "everybody",
            )

    def _check_candidate(self) -> None:
        names = ("candidate_inference", "candidate_management", "candidate_metrics")
        given = [name for name in names if getattr(self, name)]
        for name in given:
            _check_url(name, getattr(self, name))
        if given and len(given) < len(names):
            missing = next(name for name in names if name not in given)
            raise ValueRefused(missing, f"is not given; it goes together with {given[0]}")
        if given and self.candidate_inference.rstrip("/") == self.inference.rstrip("/"):
            another = "the address of another TorchServe than that of inference"
            raise _refusal("candidate_inference", self.candidate_inference, another)
        if not 0 <= self.candidate_share <= 100:
            raise _refusal("candidate_share", self.candidate_share, "percent, from 0 to 100")
        if not 1 <= self.candidate_failures <= WINDOW:
            wanted = f"a whole number from 1 to {WINDOW}"
            raise _refusal("candidate_failures", self.candidate_failures, wanted)

    def _check_fetching(self) -> None:
        if self.fetch_redirects < 0:
            raise _refusal("fetch_redirects", self.fetch_redirects, "a whole number, 0 or above")
        if self.fetch_urls and self.fetch_seconds >= self.deadline_seconds:
            raise _refusal(
                "fetch_seconds",
                self.fetch_seconds,
                f"below {PREFIX}DEADLINE_SECONDS, which is {self.deadline_seconds:g}",
            )
        for text in self.fetch_allowed_networks:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                wanted = "networks such as 10.1.0.0/16, without bits of a host"
                raise _refusal("fetch_allowed_networks", text, wanted) from None

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
        scheme = "https" if self.tls_certificate else "http"
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )

    @property
    def drain_seconds(self) -> float:
        """Seconds that the gateway may take to answer what it has accepted when it is stopped."""
        return self.deadline_seconds + 5

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], file: Path | None = None) -> Settings:
        """Read the settings.

        Args:
            environment: Variables; those that do not begin with `GATEWAY_` are ignored. They win
                over files. `GATEWAY_SETTINGS` names a file.
            file: One more TOML file, which wins over that of `GATEWAY_SETTINGS`. Paths in files are
                relative to the working folder, as those in variables are.

        Raises:
            SettingsError: A setting is unknown or has a value that cannot be used, or a file cannot
                be read. The message names the variable, or the file and the key.
        """
        kinds = get_type_hints(cls)
        given: dict[str, Any] = {}
        origins: dict[str, Path] = {}  # setting -> the file that its value comes from
        for each in settings_files(environment, file):
            values = _read_file(each, kinds)
            given |= values
            origins |= dict.fromkeys(values, each)
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in kinds or variable != variable.upper():
                known = ", ".join([*(PREFIX + each.upper() for each in kinds), FILE_VARIABLE])
                raise SettingsError(f"{variable} is not a setting; known: {known}")
            given[name] = _parse(name, text.strip(), kinds[name])
            origins.pop(name, None)
        try:
            return cls(**given)
        except ValueRefused as error:
            if error.name not in origins:
                raise
            raise _refused_in(origins[error.name], error) from None


def settings_files(environment: Mapping[str, str], file: Path | None = None) -> Sequence[Path]:
    """The files that settings are read from; a later one wins over an earlier one.

    Args:
        environment: `GATEWAY_SETTINGS` may name one.
        file: One more, or None.
    """
    named = environment.get(FILE_VARIABLE, "").strip()
    return [*([Path(named)] if named else []), *([file] if file else [])]


def _read_file(file: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a TOML file."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    given = {}
    for name, value in found.items():
        if name not in kinds:
            raise SettingsError(f"{file}: {name} is not a setting; known: {', '.join(kinds)}")
        try:
            given[name] = _from_toml(name, value, kinds[name])
        except ValueRefused as error:
            raise _refused_in(file, error) from None
    return given


def _refused_in(file: Path, error: ValueRefused) -> SettingsError:
    return SettingsError(f"{file}: {error.name} {error.problem}")


def _from_toml(name: str, value: Any, kind: Any) -> Any:
    """The value of a setting from one of a TOML file, which must have the right type."""
    if kind in (bool, int, float):
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        nouns = {bool: "true or false", int: "a whole number", float: "a number"}
        raise _refusal(name, value, f"{nouns[kind]}, without quotes")
    if kind == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise _refusal(name, value, "a list of texts in quotes")
    if not isinstance(value, str):
        raise _refusal(name, value, "a text in quotes")
    return _parse(name, value, kind)


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


def _refusal(name: str, value: object, wanted: str) -> ValueRefused:
    return ValueRefused(name, f"is {str(value)[:80]!r}; it must be {wanted}")
