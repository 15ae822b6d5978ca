"""Runs modules of the project, each in a process of its own.

The commands of `deploy/` import neither torch nor transformers; what needs them runs here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deploy.errors import ServeError
from deploy.properties import ROOT
from deploy.torchserve import THREAD_ENVIRONMENT


def run_module(what: str, module: str, *arguments: str | Path) -> None:
    """Run a module; its output is shown as it comes.

    Args:
        what: What it does, for the user.
        module: Its name, such as `training.export`.
        arguments: Its arguments.

    Raises:
        ServeError: The module failed.
    """
    _run(what, module, arguments, None)


def output_of_module(what: str, module: str, *arguments: str | Path) -> str:
    """Run a module, and return what it prints; only its errors are shown.

    Args:
        what: What it does, for the user.
        module: Its name, such as `training.export`.
        arguments: Its arguments.

    Raises:
        ServeError: The module failed.
    """
    return _run(what, module, arguments, subprocess.PIPE).stdout


def _run(
    what: str, module: str, arguments: tuple[str | Path, ...], stdout: int | None
) -> subprocess.CompletedProcess[str]:
    print(f"{what} ...", flush=True)
    binaries = str(Path(sys.executable).parent)
    environment = {
        **THREAD_ENVIRONMENT,
        **os.environ,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
    }
    done = subprocess.run(
        # Niceness: a captioner that is served meanwhile gets the processor first.
        ["nice", "-n", "5", sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=stdout,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServeError(f"{what} failed with status {done.returncode}; see the lines above")
    return done
