"""The machine that benchmarks run on, and where its figures are kept.

Processors differ in what they multiply fast, and everything measured differs with it. So every kind
of processor has a folder of results of its own, `benchmarks/results/KIND`.
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from model.layers.precision import unsupported_reason

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: Of a processor's flags, those that multiply matrices, the newest last.
MULTIPLYING = ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
#: Kinds of processors by the newest of these, the fastest first.
KINDS = {"amx": "amx_bf16", "avx512-bf16": "avx512_bf16", "avx512": "avx512f", "avx2": "avx2"}


def processor() -> str:
    """The processor's name as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Those of `MULTIPLYING` that the processor has (Linux)."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return [name for name in MULTIPLYING if name in flags]


def kind() -> str:
    """Which of `KINDS` the processor is; its architecture if none."""
    known = instructions()
    return next((kind for kind, flag in KINDS.items() if flag in known), platform.machine())


def results_folder() -> Path:
    """Where this machine's figures are kept."""
    return RESULTS / kind()


def machine(module: str) -> dict[str, Any]:
    """How, where and when something is measured, by the command line of a module."""
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }


def dtypes() -> tuple[torch.dtype, ...]:
    """What others are measured in: bfloat16 only where torch computes it fast.

    Elsewhere it takes many times as long as float32.
    """
    return (torch.float32, torch.bfloat16) if _multiplies_bf16() else (torch.float32,)


def served() -> str:
    """The fastest precision that keeps the default captioner's captions (`training.evaluate`)."""
    if _multiplies_bf16():
        return "bf16"
    return "fp32" if unsupported_reason("fp16") else "fp16"


def _multiplies_bf16() -> bool:
    # torch also takes bf16 where AVX-512 lacks its product, and takes long for it there.
    return "avx512_bf16" in instructions() and not unsupported_reason("bf16")
