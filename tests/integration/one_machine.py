"""The commands for one machine, run on folders of their own, and clients that send pictures.

The tests of `make swap` and of `make canary` use them; the fixtures are imported by `conftest.py`.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy import canary, captioner, serve, slots, swap
from deploy.captioner import Captioner
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from tests.integration.gateways import free_port

#: Threads that send pictures while a captioner is replaced.
CLIENTS = 4
Run = Callable[..., tuple[int, str, str]]
#: What has a command line of its own; the other commands are those of `deploy.serve`.
_MAINS = {
    "swap": swap.main,
    "canary": canary.main,
    "promote": canary.main,
    "rollback": canary.main,
}


@pytest.fixture(scope="module")
def other_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner that captions the sample otherwise."""
    import torch

    from model.checkpoint import Checkpoint

    folder = tmp_path_factory.mktemp("other") / "checkpoint"
    checkpoint = Checkpoint.load(tiny_checkpoint)
    with torch.no_grad():
        for weights in checkpoint.captioner.mapper.parameters():
            weights.neg_()
    checkpoint.save(folder)
    return folder


@pytest.fixture(scope="module")
def root(
    tiny_checkpoint: Path,
    tiny_artifact: Path,
    tiny_archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """The folder of the servers; the archive of `tiny_checkpoint` is made already."""
    root = tmp_path_factory.mktemp("swap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "STATE", root / "server")
        patch.setattr(slots, "ARCHIVE", root / "clipcap.mar")
        patch.setattr(slots, "ARTIFACT", root / "artifact")
        patch.setattr(captioner, "TRAINED", tiny_checkpoint)
        patch.setenv("GATEWAY_PORT", str(free_port()))
        shutil.copytree(tiny_artifact, slots.ARTIFACT)
        shutil.copyfile(tiny_archive, slots.ARCHIVE)
        identity = Captioner(tiny_checkpoint).identity()
        slots.ARCHIVE.with_suffix(".json").write_text(json.dumps(identity))
        derived_config(root / "config.properties", on_free_ports())
        try:
            yield root
        finally:
            serve.stop()


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a target of the Makefile, such as `swap` or `status`: status, stdout, stderr."""

    def start(command: str, *words: str | Path) -> tuple[int, str, str]:
        given = ["--config", str(root / "config.properties"), *map(str, words)]
        first = [] if command == "swap" else ["start" if command == "canary" else command]
        monkeypatch.setattr("sys.argv", ["command", *first, *given])
        capfd.readouterr()
        status = _MAINS.get(command, serve.main)()
        return status, *capfd.readouterr()

    return start


def gateway_address() -> str:
    return slots.gateway_of(slots.serving()[0]).address


def ask(client: httpx.Client | None = None) -> dict[str, Any]:
    """What the gateway answers for the sample."""
    reply = (client or httpx).post(
        f"{gateway_address()}/v1/captions", content=serve.SAMPLE.read_bytes(), timeout=60
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


def caption() -> str:
    return str(ask()["results"][0]["caption"])


class Load:
    """Threads that send the sample to the gateway again and again, and keep every answer."""

    def __init__(self) -> None:
        self.captions: list[tuple[float, str]] = []
        self.faults: list[str] = []
        self._address = gateway_address()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def _send(self) -> None:
        picture = serve.SAMPLE.read_bytes()
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._ended.is_set():
                begin = time.monotonic()
                try:
                    reply = client.post(f"{self._address}/v1/captions", content=picture)
                    reply.raise_for_status()
                    self.captions.append((begin, reply.json()["results"][0]["caption"]))
                except (httpx.HTTPError, LookupError, ValueError) as error:
                    self.faults.append(repr(error))
                time.sleep(0.1)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
