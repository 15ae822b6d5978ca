"""The command of a container: TorchServe or the gateway, in the foreground.

    python -m deploy.container.start torchserve
    python -m deploy.container.start gateway

Logs go to standard output, and files are written in the temporary folder only. SIGTERM ends both
servers. The gateway first answers what it has accepted; TorchServe breaks off what it is working
on. So the gateway must end before TorchServe.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from deploy.container.archive import check_archive, choose_archive
from deploy.errors import ServeError
from deploy.logs import find_failure
from deploy.properties import CONFIG, ROOT
from deploy.torchserve import TorchServe, read_pid

_LOG_CONFIG = Path(__file__).with_name("log4j2.xml")


def serve(archive: Path, config: Path = CONFIG) -> None:
    """Run TorchServe until SIGTERM or Ctrl-C ends it; its output is passed on.

    A worker that cannot load the archive ends TorchServe, which by itself would only start the
    worker again.

    Args:
        archive: The archive to serve.
        config: The `config.properties` to serve with.

    Raises:
        ServeError: The archive cannot be served, or TorchServe ended by itself.
    """
    check_archive(archive)
    with tempfile.TemporaryDirectory(prefix="clipcap-") as folder:
        output = _launch(TorchServe(Path(folder), archive, config), Path(folder))
        try:
            java = read_pid(Path(folder))
        except (FileNotFoundError, ValueError):
            raise ServeError(f"TorchServe did not start: {' '.join(output)[-600:]}") from None
        stopped = _end_with_this_process(java)
        failure = None
        for line in output:  # until Java ends, and with it the workers
            print(line, end="", flush=True)
            if failure is None and (failure := find_failure(line)):
                _terminate(java)
    if failure:
        raise ServeError(f"the worker cannot start: {failure}")
    if not stopped:
        raise ServeError("TorchServe ended by itself; the lines above may say why")


def _launch(server: TorchServe, temporary: Path) -> TextIO:
    """Start TorchServe in the background, and return its output."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb"):  # Java keeps a copy of it open
        subprocess.run(
            [*server.command(), "--log-config", _LOG_CONFIG],
            cwd=ROOT,  # config.properties names files from here
            env=server.environment(temporary),
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return os.fdopen(reader, errors="replace")


def _end_with_this_process(pid: int) -> list[int]:
    """Pass SIGTERM and Ctrl-C on to a process; the list is empty until one came."""
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        _terminate(pid)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return received


def _terminate(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def main() -> int:
    """Run one of the two servers.

    Returns:
        The exit status of TorchServe's; the gateway replaces this process.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.container.start", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("server", choices=("torchserve", "gateway"))
    if parser.parse_args().server == "gateway":
        os.execv(sys.executable, [sys.executable, "-m", "gateway"])
    try:
        archive = choose_archive()
        print(f"serving {archive}", flush=True)
        serve(archive)
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
