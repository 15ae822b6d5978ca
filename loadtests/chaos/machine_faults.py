"""The machine has no more room for logs, or no more files for the gateway."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import psutil

from loadtests.chaos.case import Case, Skipped, check
from loadtests.chaos.connection_faults import open_connections
from loadtests.chaos.stage import Stage

#: Size of the disk that gets full.
DISK = "4m"
FULL_SECONDS = 10.0
#: Files that the gateway may open beside those that it has open.
FILES_LEFT = 12
WITHOUT_FILES_SECONDS = 8.0


def fill_disk(stage: Stage) -> str:
    """Fill the disk that the logs of both servers are on."""
    disk = stage.folder / "server"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        return _with_full_disk(stage)
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def _with_full_disk(stage: Stage) -> str:
    with stage.serving() as serving, stage.sending(serving) as clients:
        log = serving.gateway.log
        ballast = serving.server.folder / "ballast"
        stage.mark("full")
        _fill(ballast)
        size = log.stat().st_size
        time.sleep(FULL_SECONDS)
        clients.wait_for_answers()
        check(log.stat().st_size <= size + 4096, "the log grew: the disk was not full")
        ballast.unlink()
        stage.mark("has room")
        size = log.stat().st_size
        clients.wait_for_answers()
        check(log.stat().st_size > size, "the gateway's log is not written any more")
    clients.check_none_lost()
    return "captions went on without a log, which went on when there was room"


def _fill(file: os.PathLike[str]) -> None:
    """Write until the disk has not one byte left."""
    with open(file, "wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def take_files(stage: Stage) -> str:
    """Let the gateway open hardly any more files, and open more connections than that."""
    with stage.serving() as serving, stage.sending(serving) as clients:
        process = serving.process
        assert process is not None
        allowed = process.rlimit(psutil.RLIMIT_NOFILE)
        stage.mark("no files")
        # Files are numbered from the lowest that is free, so the limit is on their number.
        limit = process.num_fds() + FILES_LEFT
        process.rlimit(psutil.RLIMIT_NOFILE, (limit, allowed[1]))
        with open_connections(serving.address, 10 * FILES_LEFT):
            begin = sum(process.cpu_times()[:2])
            time.sleep(WITHOUT_FILES_SECONDS)
            busy = (sum(process.cpu_times()[:2]) - begin) / WITHOUT_FILES_SECONDS
        stage.mark("closed")
        clients.wait_for_answers()
        process.rlimit(psutil.RLIMIT_NOFILE, allowed)
        clients.wait_for_answers()
        check(process.is_running() and process.status() != "zombie", "the gateway has ended")
    check(busy < 0.5, f"the gateway used {busy:.0%} of a core while it had no files")
    clients.check_none_lost()
    return (
        f"new connections waited; it used {busy:.0%} of a core; all was answered when the "
        "connections were closed"
    )


CASES = [
    Case(
        "disk-full",
        f"the disk of the logs is full for {FULL_SECONDS:g} s",
        "no request lost; the logs go on when there is room",
        fill_disk,
    ),
    Case(
        "no-files",
        f"the gateway may open {FILES_LEFT} more files, and {10 * FILES_LEFT} connections come",
        "it waits without using the processor; no request lost once connections are closed",
        take_files,
    ),
]
