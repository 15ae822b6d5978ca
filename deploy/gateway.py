"""The gateway in front of one TorchServe, a process of its own: started, waited for, stopped.

Its settings are `GATEWAY_*` environment variables and a TOML file, which the gateway reads and
checks itself; see `gateway/settings.py`. Where TorchServe is, is given to it from here in a file,
because it can be moved to another TorchServe while it runs; see `gateway/reload.py`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import tomllib
import urllib.parse
from pathlib import Path
from typing import Any

import psutil

from deploy import gateway_backend, health, logs, processes
from deploy.errors import ServeError
from deploy.gateway_backend import Trial
from deploy.ports import check_address
from deploy.processes import read_state, write_state
from deploy.properties import ROOT, ports
from deploy.torchserve import TorchServe

#: What Python runs.
_MODULE = "gateway"
_PORT_SETTING = "GATEWAY_PORT"
_FILE_SETTING = "GATEWAY_SETTINGS"
_FEEDBACK_SETTING = "GATEWAY_FEEDBACK"
#: Seconds to end beside those for answers.
_LAST_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Check:
    """What the gateway says of its settings.

    Attributes:
        address: Where it would listen, such as `http://127.0.0.1:8000`.
        stop_seconds: How long it may take to answer what it has accepted when it is stopped.
        needs_key: Whether requests must carry a key.
    """

    address: str
    stop_seconds: float
    needs_key: bool


@dataclasses.dataclass(frozen=True)
class Gateway:
    """A gateway in front of a TorchServe of this machine.

    Attributes:
        server: The TorchServe.
        folder: Where state, addresses and logs of the gateway are kept. It stays when the gateway
            is moved to another TorchServe.
        feedback: URL of the database of feedback, unless the user's settings name one or none.
    """

    server: TorchServe
    folder: Path
    feedback: str = ""

    def process(self) -> psutil.Process | None:
        """The running gateway that the state names, if it is still the same process."""
        return processes.find(self._recorded(), _MODULE)

    def was_started(self) -> bool:
        """Whether a gateway was started here and not stopped; it may have ended by itself."""
        return bool(self._recorded())

    @property
    def address(self) -> str:
        """Where the gateway that was started listens, such as `http://127.0.0.1:8000`."""
        return str(self._recorded().get("address", "an unknown address"))

    @property
    def log(self) -> Path:
        """The file that it writes its log to."""
        return self.folder / "logs" / logs.GATEWAY

    def asks(self) -> str:
        """The address of the TorchServe that it was told to ask; empty if it was not started."""
        return gateway_backend.read(self._backend)

    def trial(self) -> Trial | None:
        """What a second captioner gets of its requests; None if none is tried out."""
        return gateway_backend.read_trial(self._backend)

    def trial_stopped(self, trial: Trial) -> str:
        """Why it sends nothing more to the candidate; empty if it does.

        Args:
            trial: As `trial` returned it.
        """
        return gateway_backend.stopped(self.log, trial)

    def forget_trial(self) -> None:
        """Try out nothing from the next start on; the gateway must not run."""
        gateway_backend.forget_trial(self._backend)

    def has_settings(self) -> bool:
        """Whether the gateway was started with the settings of this process.

        They are its `GATEWAY_*` variables, and the file that one of them may name.

        Raises:
            ServeError: A setting names another TorchServe.
        """
        return bool(self._recorded().get("settings") == _settings(self._environment()))

    def check(self) -> Check:
        """Check the settings of the gateway and that its port is free.

        Raises:
            ServeError: A setting cannot be used, or its port is in use.
        """
        done = subprocess.run(
            [sys.executable, "-m", _MODULE, "--check"],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise ServeError(f"the gateway cannot start: {reason.removeprefix('error: ')}")
        check = Check(**json.loads(done.stdout))
        address = check.address
        port = urllib.parse.urlsplit(address).port
        for name, taken in ports(self.server.config).items():
            if port == taken:
                raise ServeError(
                    f"port {port} is that of TorchServe's {name}; set {_PORT_SETTING} to another "
                    "port"
                )
        check_address(address, _PORT_SETTING)
        return check

    def start(self, check: Check, timeout: float = 30.0) -> psutil.Process:
        """Start the gateway and wait until it answers. A trial goes on.

        Args:
            check: What `check` returned.
            timeout: Seconds to wait.

        Returns:
            Its process.

        Raises:
            ServeError: It did not answer in time, or ended by itself. It runs no more then.
        """
        environment = self._environment()
        if not self.was_started():  # else the log of one that ended by itself goes on
            logs.rotate(self.log.parent)
        gateway_backend.write(self._backend, self.server, self.trial())
        with self.log.open("a") as log:
            process = psutil.Popen(
                [sys.executable, "-m", _MODULE, "--settings", self._backend],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is not for the gateway
            )
        try:
            state = {
                "pid": process.pid,
                "created": processes.created(process),
                **dataclasses.asdict(check),
                "settings": _settings(environment),
            }
            write_state(self._state, state)
            self._wait(process, check.address, time.monotonic() + timeout)
        except BaseException:  # Ctrl-C too: no process is left running
            processes.end(process, "gateway")
            self._state.unlink(missing_ok=True)
            raise
        return process

    def move_to(
        self, server: TorchServe, trial: Trial | None = None, timeout: float = 30.0
    ) -> None:
        """Make the running gateway send its requests to other TorchServes from now on.

        Those in flight end where they began; see `wait_left`.

        Args:
            server: The one that answers, which is ready.
            trial: What a second one gets of the requests; None ends a trial.
            timeout: Seconds to wait until the gateway has moved.

        Raises:
            ServeError: The gateway does not run, or did not move; then it stays where it was.
        """
        process = self.process()
        if process is None:
            raise ServeError("the gateway does not run; start it: make serve")
        gateway_backend.move(process, self._backend, self.log, server, trial, timeout)

    def wait_left(self, address: str, timeout: float) -> None:
        """Wait until no request of the gateway is at a TorchServe that it was moved away from.

        Args:
            address: That of its captions, such as `http://127.0.0.1:8080`.
            timeout: Seconds to wait.

        Raises:
            ServeError: Requests are still there.
        """
        gateway_backend.wait_left(self.log, address, timeout)

    def stop(self) -> bool:
        """End the gateway, once it has answered what it has accepted.

        It has as long for that as it says, which depends on its deadline. A line is printed if it
        takes more than a moment.

        Returns:
            Whether it was running.

        Raises:
            ServeError: The gateway belongs to another user.
        """
        process = self.process()
        if process is not None:
            seconds = float(self._recorded().get("stop_seconds", 15.0))
            waits = f"the gateway answers what it has accepted, for {seconds:g} s at most ..."
            processes.end(process, "gateway", seconds + _LAST_SECONDS, waits)
        self._state.unlink(missing_ok=True)
        return process is not None

    def answers(self) -> bool:
        """Whether `/healthz` of the gateway that was started is answered."""
        return health.answers(self.address)

    @property
    def _state(self) -> Path:
        return self.folder / "state.json"

    @property
    def _backend(self) -> Path:
        """The addresses of TorchServe, which the gateway reads at its start and at SIGHUP."""
        return self.folder / "backend.toml"

    def _recorded(self) -> dict[str, Any]:
        return read_state(self._state)

    def _environment(self) -> dict[str, str]:
        """The environment of the gateway.

        Raises:
            ServeError: A setting names another TorchServe than the one that is served.
        """
        server = self.server
        given = {**gateway_backend.addresses(server), "model": server.model}
        for name, found in _read_settings_file().items():
            if found != given.get(name, found):
                raise ServeError(
                    f"{os.environ[_FILE_SETTING]}: {name} is {found!r}, but TorchServe is started "
                    f"with {given[name]} ({server.config.name}); remove {name}"
                )
        environment = dict(os.environ)
        for name, value in given.items():
            variable = f"GATEWAY_{name.upper()}"
            if environment.get(variable, value) != value:
                raise ServeError(
                    f"{variable} is {environment[variable]!r}, but TorchServe is started with "
                    f"{value} ({server.config.name}); unset {variable}"
                )
            environment.pop(variable, None)  # it would win over the file
        for name in dataclasses.asdict(Trial("", "", "", 0.0, False)):
            variable = f"GATEWAY_{gateway_backend.CANDIDATE}{name}".upper()
            if variable in environment:
                raise ServeError(f"{variable} is set; unset it: make canary tries a captioner out")
        if self.feedback and "feedback" not in _read_settings_file():
            environment.setdefault(_FEEDBACK_SETTING, self.feedback)
        return {**environment, "GATEWAY_MODEL": server.model}

    def _wait(self, process: psutil.Popen, address: str, deadline: float) -> None:
        """Return once the gateway answers.

        Another program may have taken the port between its check and the start, and may answer
        there. So the process itself must listen.
        """
        while not (health.answers(address) and health.listens(process, address)):
            if process.poll() is not None:
                raise ServeError(f"the gateway ended by itself: {self._last_lines()}")
            if time.monotonic() > deadline:
                raise ServeError(
                    f"the gateway did not answer at {address}/healthz in time: {self._last_lines()}"
                )
            time.sleep(0.1)

    def _last_lines(self) -> str:
        return logs.last_lines(self.log.parent, (logs.GATEWAY,))


def _read_settings_file() -> dict[str, Any]:
    """What stands in the file of `GATEWAY_SETTINGS`; the gateway itself reports a faulty one."""
    file = os.environ.get(_FILE_SETTING, "").strip()
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return {}


def _settings(environment: dict[str, str]) -> dict[str, Any]:
    """The user's settings of the gateway, to be compared; all of it can be written as JSON."""
    given = {name: text for name, text in environment.items() if name.startswith("GATEWAY_")}
    return {**given, "file": {name: str(value) for name, value in _read_settings_file().items()}}
