"""What `benchmarks.serve` measures: archives with random weights, and servers of them.

A server is started as `make serve` does it, on free ports, in a folder of its own, with an archive
whose `model-config.yaml` has the values to try.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.real_size import real_size_checkpoint
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from handler.caption_settings import cores
from model.export import export_torchscript
from model.options import GenerationOptions
from model.refusal import Refusal
from training.archive import PACKED, ROOT, archive

#: Forced: how long random captions are shall not decide how long they take.
CAPTIONS = GenerationOptions(num_beams=5, max_tokens=20, min_tokens=20)
#: A picture's file, and the options that go with it.
Request = tuple[Path, dict[str, str]]
#: Sizes of pictures: what is usually sent, and what a phone takes.
USUAL, LARGE = (640, 480), (4000, 3000)


@dataclasses.dataclass(frozen=True)
class Values:
    """Values of `model-config.yaml` that are tried.

    Attributes:
        workers: Processes.
        threads: Threads of torch in each.
        batch: Requests that a worker takes at once at most.
        delay: Milliseconds that a request waits for others.
    """

    workers: int
    threads: int
    batch: int
    delay: int

    @classmethod
    def shipped(cls) -> Values:
        """Those of `handler/model-config.yaml` on this machine."""
        text = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
        workers = text["minWorkers"]
        threads = text["handler"].get("threads", max(1, cores() // workers))
        return cls(workers, threads, text["batchSize"], text["maxBatchDelay"])


def make_archive(folder: Path, precision: str, tiny: bool) -> Path:
    """Export and pack a captioner with random weights, unless the folder holds one of this code.

    Args:
        folder: Where archives are kept.
        precision: One of `model.layers.precision.PRECISIONS`.
        tiny: A captioner of a few megabytes instead of one of real size.
    """
    out = folder / f"{'tiny' if tiny else 'real'}-{precision}" / "clipcap.mar"
    code = [file for room in PACKED for file in (ROOT / room).iterdir() if file.is_file()]
    if out.is_file() and out.stat().st_mtime > max(file.stat().st_mtime for file in code):
        return out
    layers = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64}
    small: dict[str, Any] = {
        "clip": {**layers, "num_attention_heads": 2},
        "gpt2": {"n_layer": 1, "n_embd": 64, "n_head": 2},
    }
    checkpoint = real_size_checkpoint(**small) if tiny else real_size_checkpoint()
    checkpoint = dataclasses.replace(checkpoint, generation=CAPTIONS)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        checkpoint.save(Path(temporary, "checkpoint"))
        del checkpoint
        export_torchscript(
            Path(temporary, "checkpoint"), Path(temporary, "artifact"), None, precision
        )
        archive(Path(temporary, "artifact"), out)
    return out


def weights_mb(archive: Path) -> float:
    """Size of the TorchScript file in an archive."""
    with zipfile.ZipFile(archive) as packed:
        return round(packed.getinfo("captioner.pt").file_size / 1e6, 1)


def with_values(archive: Path, out: Path, values: Values) -> Path:
    """A copy of an archive with other values in its `model-config.yaml`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "model-config.yaml":
                config = yaml.safe_load(content)
                config |= {"minWorkers": values.workers, "maxWorkers": values.workers}
                config |= {"batchSize": values.batch, "maxBatchDelay": values.delay}
                config["handler"]["threads"] = values.threads
                content = yaml.safe_dump(config).encode()
            target.writestr(entry, content)
    return out


@contextlib.contextmanager
def serving(archive: Path, values: Values) -> Iterator[tuple[TorchServe, dict[str, float]]]:
    """A server whose workers are all ready, and what its start took; ended behind the block.

    What it took: `ready_seconds` from the command to the last worker's READY, and of the largest
    worker `resident_mb` and the highest it ever was, `peak_mb` (Linux, /proc/PID/status).
    """
    folder = Path(tempfile.mkdtemp(prefix="clipcap-serve-"))
    packed = with_values(archive, folder / "store" / "clipcap.mar", values)
    config = derived_config(folder / "config.properties", on_free_ports())
    server = TorchServe(folder, packed, config)
    begin = time.monotonic()
    server.start()
    try:
        took = {"ready_seconds": round(time.monotonic() - begin, 2)}
        memory = [resident(worker) for worker in server.workers()]
        took |= dict(zip(("resident_mb", "peak_mb"), max(memory), strict=True))
        yield server, took
    finally:
        server.stop()
    shutil.rmtree(folder)  # not after an error: the logs in it tell more


def resident(process: int) -> tuple[float, float]:
    """Resident memory of a process in MB, now and at its highest (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    now, peak = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return round(now, 1), round(peak, 1)


class InProcess:
    """`benchmarks/served_in_process.py` in a process of its own, with a worker's environment.

    Args:
        archive: The archive that it loads.
        values: Its `threads` count; batches are as large as asked.
        folder: A folder to make and unpack into.
    """

    def __init__(self, archive: Path, values: Values, folder: Path) -> None:
        packed = with_values(archive, folder / "clipcap.mar", values)
        with zipfile.ZipFile(packed) as source:
            source.extractall(folder / "unpacked")
        script = Path(__file__).with_name("served_in_process.py")
        self._errors = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-P", script, folder / "unpacked"],
            cwd=folder,
            env={
                **THREAD_ENVIRONMENT,
                **os.environ,
                "PYTHONPATH": str(folder / "unpacked"),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> InProcess:
        """Nothing more to do; it loads meanwhile."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def seconds(self, kind: str, what: int | Sequence[Request], times: int) -> list[float]:
        """What each of several times took.

        Args:
            kind: `handler`, `model` or `decode`.
            what: The requests of a batch; for `model` how many pictures.
            times: How often.

        Raises:
            Refusal: The process ended.
        """
        asked = what if isinstance(what, int) else [(str(file), options) for file, options in what]
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # what it said last is told below
            self._process.stdin.write(json.dumps([kind, asked, times]) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise Refusal(f"the archive's handler failed: {self._errors.read()[-300:].strip()}")
        spent: list[float] = json.loads(line)
        return spent
