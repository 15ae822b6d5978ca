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
import time
import zipfile
from pathlib import Path

import httpx
import psutil

from deploy import captioner, slots
from deploy.properties import ROOT
from tests.integration.one_machine import CLIENTS, Load, Run, caption, gateway_address

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
    kill_swap_at(root, "swap.end")
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
