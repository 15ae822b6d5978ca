"""The machine that benchmarks run on: what it is, where its results are kept, its processes.

What is fast depends on the kind of processor, so every kind has its own folder of results,
`benchmarks/results/KIND`. Systems that are compared run in a process each (`OwnProcess`), since in
one process they would share memory, threads and caches, and slow each other down.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import gc
import json
import multiprocessing
import platform
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers

from handler.caption_settings import cores
from model.layers.memory import release_free_memory
from model.layers.precision import unsupported_reason

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: Flags of a processor that matter for matrix products, the newest last.
MATRIX_FLAGS = ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
#: Kind of processor -> the newest flag it has, the fastest kind first.
KINDS = {"amx": "amx_bf16", "avx512-bf16": "avx512_bf16", "avx512": "avx512f", "avx2": "avx2"}


@functools.cache
def _cpuinfo() -> str:
    """What Linux reports of the processor; empty on another system."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


def processor() -> str:
    """Name of the processor, as the operating system reports it."""
    name = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The `MATRIX_FLAGS` that the processor has (Linux)."""
    flags = set(_cpuinfo().split())
    return [name for name in MATRIX_FLAGS if name in flags]


def kind() -> str:
    """Kind of this processor, one of `KINDS`; its architecture if it is none of them."""
    flags = instructions()
    return next((kind for kind, flag in KINDS.items() if flag in flags), platform.machine())


def results_folder() -> Path:
    """Where the results of this kind of processor are kept."""
    return RESULTS / kind()


def command_line(module: str) -> str:
    """The command that runs now, as a user types it."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of a command's options; `--help` shows the text of its file."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=form)


def write_results(file: Path, command: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write results as JSON, after a head: the command, this machine, the versions and the date.

    Args:
        file: Its folder is made if there is none.
        command: What made the results.
        results: What was measured.

    Returns:
        All that was written.
    """
    head = {
        "command": command,
        "processor": processor(),
        "cores": cores(),
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**head, **results}, indent=2) + "\n")
    return {**head, **results}


def has_bf16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself.

    Where it does not, torch still computes bfloat16, but many times slower than float32.
    """
    return "avx512_bf16" in instructions() and not unsupported_reason("bf16")


def served_precision() -> str:
    """The fastest precision that keeps the default captioner's captions (`training.evaluate`)."""
    if has_bf16_products():
        return "bf16"
    return "fp32" if unsupported_reason("fp16") else "fp16"


def resident(process: int) -> dict[str, float]:
    """Resident memory of a process in MB (Linux, /proc/PID/status).

    Returns:
        `now` and `peak` of all pages, and `anonymous`, what the machine must have: all but the
        pages of mapped files, which the kernel may drop and read again.

    Raises:
        OSError: There is no such process.
        KeyError: The process has just ended and has no memory any more.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    parts = {"now": ("VmRSS",), "peak": ("VmHWM",), "anonymous": ("RssAnon", "RssShmem")}
    return {
        name: round(sum(int(fields[field].split()[0]) for field in own) * 1024 / 1e6, 1)
        for name, own in parts.items()
    }


class OwnProcess:
    """A process that prepares one thing and then calls functions on request.

    Args:
        prepare: Called once in the process, at the start. What it makes stays there, in a
            `functools.cache`, and functions that are called later take it from that cache:
            functions are sent by pickle, what they need is not.
    """

    def __init__(self, prepare: Callable[[], Any]) -> None:
        # A fork of this process would inherit torch's threads. The fork server has only imported.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", "benchmarks.captioners"])
        self._pool = ProcessPoolExecutor(1, context, _start, (torch.get_num_threads(), prepare))

    def __enter__(self) -> OwnProcess:
        """Wait until the process has prepared.

        Raises:
            BrokenProcessPool: `prepare` failed; the process has printed the reason.
        """
        self._pool.submit(int).result()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._pool.shutdown()

    def timed(self, function: Callable[[], Any]) -> tuple[float, Any]:
        """Call a function there; returns the seconds it took and its result."""
        return self._pool.submit(_timed, function).result()


@torch.no_grad()
def _start(threads: int, prepare: Callable[[], Any]) -> None:
    warnings.simplefilter("ignore")  # torch.jit is deprecated
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    prepare()
    gc.collect()
    release_free_memory()  # all these processes share the machine's memory


@torch.no_grad()
def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result
