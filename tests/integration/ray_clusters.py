"""Ray clusters of the tests, on ports of their own, and the command that captions on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests import ROOT
from tests.processes import free_port

#: Ends a picture whose decoding ends the process, as a fault of a decoder would.
MARK = b"ends the process that decodes it"
#: Ray gives way to all other processes of a machine; a test has to end on a busy one too.
NOT_NICE = {"RAY_worker_niceness": "0"}
#: How often a node is started: Ray gives up after half a minute.
STARTS = 4
#: Seconds after which a test gives up; on a quiet machine nothing takes a tenth of it.
PATIENCE = 400
#: Read by every Python process of a cluster at its start.
_DEADLY = f"""
import importlib.abc, importlib.util, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "scale.stages.decoding":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def patched(module):
            execute(module)
            open_image = module.open_image

            def deadly(data, *limits):
                if bytes(data).endswith({MARK!r}):
                    os.kill(os.getpid(), signal.SIGKILL)
                return open_image(data, *limits)

            module.open_image = deadly

        spec.loader.exec_module = patched
        return spec

sys.meta_path.insert(0, Finder())
"""


class Cluster:
    """Ray nodes of this machine; use `cluster`.

    Args:
        folder: For their files.
        environment: More variables for all of them.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.port, self.nodes = free_port(), list[subprocess.Popen[bytes]]()
        deadly = folder / "deadly"
        deadly.mkdir(parents=True)
        (deadly / "sitecustomize.py").write_text(_DEADLY)
        self._folder = folder
        # Paths of sockets must be short.
        self._sessions = Path(f"/tmp/ray-{os.getpid()}-{self.port}")
        self.environment = {
            **os.environ,
            **environment,
            "HOME": str(folder),  # the token of the cluster is there
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **NOT_NICE,
        }
        self._python_path = str(deadly)
        self._ray("get-auth-token", "--generate")
        self.address = f"127.0.0.1:{self.port}"

    def _ray(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env=self.environment, check=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip

    def add_node(self, processors: int) -> subprocess.Popen[bytes]:
        """Start a node, the head if it is the first one; its processes end with it."""
        words = ["start", "--block", f"--num-cpus={processors}", "--object-store-memory=200000000",
                 "--min-worker-port=0", "--max-worker-port=0"]  # fmt: skip
        if self.nodes:
            words.append(f"--address={self.address}")
        else:
            words += ["--head", f"--port={self.port}", "--include-dashboard=false",
                      f"--temp-dir={self._sessions}"]  # fmt: skip
        log = self._folder / f"node-{len(self.nodes)}.log"
        for _ in range(STARTS):
            with log.open("wb") as file:
                node = subprocess.Popen(
                    [sys.executable, "-m", "ray.scripts.scripts", *words],
                    env={**self.environment, "PYTHONPATH": self._python_path},
                    stdout=file,
                    stderr=file,
                )
            while node.poll() is None:
                if b"Ray runtime started" in log.read_bytes():
                    self.nodes.append(node)
                    return node
                time.sleep(0.1)
            assert "timed out during startup" in log.read_text(), log.read_text()
        raise AssertionError(log.read_text())

    def workers(self, stage: str) -> list[psutil.Process]:
        """The processes of a stage, such as `CaptionStage`, on all nodes; none before it begins."""
        found = []
        for node in self.nodes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(node.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if f"({stage})" in " ".join(process.cmdline()):
                            found.append(process)
        return found

    def kill_workers(self, stage: str) -> None:
        """End the processes of a stage as soon as there are some."""
        end = time.monotonic() + PATIENCE
        while not (found := self.workers(stage)):
            assert time.monotonic() < end, f"{stage} has no process"
            time.sleep(0.02)
        for process in found:
            process.kill()

    def stop(self) -> None:
        """End all nodes at once; SIGTERM would wait half a minute."""
        for node in reversed(self.nodes):
            kill_node(node)
        shutil.rmtree(self._sessions, ignore_errors=True)


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """End a node with all its processes, as a machine that loses its power."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    node.wait()


@contextlib.contextmanager
def cluster(
    folder: Path, *processors: int, environment: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster of nodes with so many processors each."""
    made = Cluster(folder, environment or {})
    try:
        for each in processors:
            made.add_node(each)
        yield made
    finally:
        made.stop()


def start_command(
    *words: str | Path, environment: Mapping[str, str] | None = None, log: Path
) -> subprocess.Popen[bytes]:
    """Start `python -m scale.caption`; what it prints goes to the file `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "scale.caption", *map(str, words)],
            cwd=ROOT,
            env={
                **(environment or os.environ),
                **NOT_NICE,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            },
            stdout=file,
            stderr=file,
        )


def finish(
    command: subprocess.Popen[bytes], log: Path, status: int = 0, seconds: int = PATIENCE
) -> str:
    """Wait for the command; what it printed."""
    try:
        command.wait(seconds)
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGKILL)
        command.wait()
        raise AssertionError(f"it does not end: {log.read_text()}") from None
    said = log.read_text()
    assert command.returncode == status, said
    return said


def wait_for_blocks(out: Path, command: subprocess.Popen[bytes], log: Path, count: int = 1) -> int:
    """Wait until so many blocks are written; how many there are."""
    end = time.monotonic() + PATIENCE
    while (found := len(list((out / "_blocks").glob("[0-9]*.parquet")))) < count:
        assert command.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    return found
