"""`make swap`: another captioner behind a gateway under load; refusals; swaps that are killed.

The tests share one gateway and run in the order of this file: each begins with what the one before
has left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy import captioner, serve, slots, swap
from deploy.captioner import Captioner
from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config
from tests.integration.gateways import free_port

#: Threads that send pictures while a captioner is swapped.
CLIENTS = 4
#: Runs `make swap` up to a function, which says so and then waits to be killed.
UP_TO = """
import sys, time
from pathlib import Path
from deploy import captioner, golden, slots, swap
root = Path(sys.argv.pop(1))
captioner.TRAINED = Path(sys.argv.pop(1))
module, name = sys.argv.pop(1).split(".")
slots.STATE, slots.ARCHIVE = root / "server", root / "clipcap.mar"
slots.ARTIFACT = root / "artifact"
def wait(*_):
    print("waits", flush=True)
    time.sleep(600)
setattr({"golden": golden, "swap": swap}[module], name, wait)
sys.exit(swap.main())
"""

Run = Callable[..., tuple[int, str, str]]


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
    """Runs `make swap` (as `swap`) or a command of `deploy.serve`: status, stdout, stderr."""

    def start(command: str, *words: str | Path) -> tuple[int, str, str]:
        given = ["--config", str(root / "config.properties"), *map(str, words)]
        argv = ["swap", *given] if command == "swap" else ["serve", command, *given]
        monkeypatch.setattr("sys.argv", argv)
        capfd.readouterr()
        status = swap.main() if command == "swap" else serve.main()
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


def left_running() -> list[psutil.Process]:
    """Every process of the servers that runs, with its workers."""
    found = [slot.server.process() for slot in slots.slots()]
    found.append(slots.gateway_of(slots.slots()[0]).process())
    return [each for process in found if process for each in family(process)]


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def kill_swap_at(root: Path, function: str, *words: str | Path) -> None:
    """Run `make swap` in a process of its own, and kill that when it calls a function."""
    given = ["--config", root / "config.properties", *words]
    process = subprocess.Popen(
        [sys.executable, "-c", UP_TO, root, captioner.TRAINED, function, *map(str, given)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line == "waits\n":
                break
        process.kill()
    assert said[-1] == "waits\n", said


def test_there_must_be_a_gateway(run: Run):
    status, out, err = run("swap")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "error: no gateway runs" in err


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


def test_no_request_is_lost_under_load(root: Path, run: Run, other_checkpoint: Path):
    status, out, err = run("start")
    assert status == 0, out + err
    old, _ = slots.serving()
    before, address, processes = caption(), old.server.rest, family(old.server.process())
    with Load() as load:
        status, out, err = run("swap", "--checkpoint", other_checkpoint)
        assert status == 0, out + err
        swapped = time.monotonic()
        after = caption()
        time.sleep(1)
    assert after != before
    assert not load.faults
    assert {text for _, text in load.captions} == {before, after}
    late = [text for begin, text in load.captions if begin > swapped]
    assert len(late) > CLIENTS
    assert set(late) == {after}

    # The old one is gone, and its archive is as it was.
    assert not any(each.is_running() for each in processes)
    new, other = slots.serving()
    assert other.server.folder == old.server.folder
    assert new.server.rest in out
    assert new.server.rest != address
    assert new.server.archive != old.server.archive
    assert httpx.get(f"{gateway_address()}/readyz", trust_env=False).status_code == 200

    # The other commands know what is served now.
    status, out, err = run("status")
    assert (status, err, out.count("\n")) == (0, "", 2)
    assert out.startswith(f"{new.server.rest}: {other_checkpoint}, process ")
    for command in ("start", "swap"):
        status, out, err = run(command, "--checkpoint", other_checkpoint)
        assert (status, err) == (0, ""), out
        assert f"is served at {new.server.rest}" in out
        assert " already; " in out
    status, out, err = run("start")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "make swap" in err
    assert run("idle")[0] == 1


def refused(run: Run, *words: str | Path) -> str:
    """The error of a swap after which everything is as it was."""
    (slot, other), before = slots.serving(), (caption(), left_running())
    status, _, err = run("swap", *words)
    assert status == 1
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    process = slot.server.process()
    assert line.endswith(f" is served at {slot.server.rest} (process {process.pid}) as before")
    assert slots.serving() == (slot, other)
    assert (caption(), left_running()) == before
    return line


def test_another_preprocessing_in_the_archive_is_refused(root: Path, run: Run):
    """Of the archive that was served before and is taken again, because nothing has changed."""
    sound = slots.ARCHIVE.read_bytes()
    try:
        with zipfile.ZipFile(slots.ARCHIVE) as source:
            files = {name: source.read(name) for name in source.namelist()}
        info = json.loads(files["captioner.json"])
        info["preprocessing"]["resample"] = "bilinear"
        files["captioner.json"] = json.dumps(info).encode()
        with zipfile.ZipFile(slots.ARCHIVE, "w") as target:
            for name, content in files.items():
                target.writestr(name, content)
        said = refused(run)
    finally:
        slots.ARCHIVE.write_bytes(sound)
    assert "the new TorchServe captions docs/sample.jpg otherwise than its artifact does" in said


def test_a_broken_checkpoint_is_refused(run: Run, other_checkpoint: Path, tmp_path: Path):
    broken = shutil.copytree(other_checkpoint, tmp_path / "broken")
    weights = broken / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert "exporting failed with status 1" in refused(run, "--checkpoint", broken)


def test_a_swap_killed_after_the_gateway_moved_is_finished_by_the_next_command(
    root: Path, run: Run
):
    before, (old, free) = caption(), slots.serving()
    address, left = old.server.rest, old.server.process()
    kill_swap_at(root, "swap._end")
    assert caption() != before
    new, other = slots.serving()
    assert (other, new.server.folder) == (old, free.server.folder)
    status, out, err = run("status")
    assert (status, err) == (1, "")
    assert f"process {left.pid}, left by a make swap that was cut off" in out
    status, out, err = run("start")
    assert (status, err) == (0, "")
    assert f"a make swap was cut off; TorchServe at {address} (process {left.pid})" in out
    assert f"is served at {new.server.rest}" in out
    assert not left.is_running()
    assert caption() != before


def test_a_swap_killed_before_the_gateway_moved_is_cleared_away(
    root: Path, run: Run, other_checkpoint: Path
):
    before, (old, new) = caption(), slots.serving()
    assert new.server.process() is None
    kill_swap_at(root, "golden.compare", "--checkpoint", other_checkpoint)
    assert caption() == before
    assert slots.serving()[0] == old
    assert slots.serving()[1].server.process()
    running = left_running()
    assert run("stop") == (0, "stopped\n", "")
    assert not any(each.is_running() for each in running)
    assert left_running() == []
    assert run("idle")[0] == 0
