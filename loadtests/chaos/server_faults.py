"""TorchServe is killed, the gateway is stopped in the middle of its work, the clock jumps."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from loadtests.chaos.case import Case, Skipped, check, wait_until
from loadtests.chaos.serving import Serving
from loadtests.chaos.stage import Stage

#: Seconds in which processes whose parent was killed must have ended.
ORPHAN_SECONDS = 15.0
#: Seconds in which the gateway must have answered what it has accepted, and ended.
DRAIN_SECONDS = 30.0
#: A connection that the system had taken, but the gateway not yet, is reset when it stops. Requests
#: that began so many seconds before SIGTERM, or later, may meet that.
UNACCEPTED_SECONDS = 0.1
#: The clock's jumps in seconds, from its true time: forward four times, then far back.
JUMPS = (120, 3600, 7200, 10800, -3600)


def kill_torchserve(stage: Stage) -> str:
    """Kill TorchServe and start it again, as its supervisor would."""
    with stage.serving() as serving, stage.sending(serving) as clients:
        workers = serving.server.workers()
        process = serving.server.process()
        assert process is not None
        stage.mark("kill")
        begin = time.monotonic()
        process.kill()
        process.wait()
        serving.start_torchserve()
        started = time.monotonic() - begin
        stage.mark("ready")
        clients.wait_for_answers()
        wait_until(
            lambda: not any(map(psutil.pid_exists, workers)),
            ORPHAN_SECONDS,
            "a worker of the TorchServe that was killed runs still",
        )
        resent = serving.metric("gateway_pictures_resent_total")
    clients.check_none_lost()
    check(resent > 0, "no request was sent again, so none was there when TorchServe was killed")
    return (
        f"it was back after {started:.1f} s; {resent:g} pictures were sent once more, the others "
        "waited; the old worker ended by itself"
    )


def drain(stage: Stage) -> str:
    """Stop the gateway by SIGTERM while it answers, and start another one."""
    with stage.serving() as serving, stage.sending(serving) as clients:
        process = serving.process
        assert process is not None
        # Clients pause between two requests, so wait for a moment when several wait.
        wait_until(
            lambda: serving.metric("gateway_pictures_in_flight") >= 3, 30, "few requests at a time"
        )
        stage.mark("SIGTERM")
        begin = time.monotonic()
        process.terminate()
        status = process.wait(DRAIN_SECONDS)
        spent = time.monotonic() - begin
        check(status == 0, f"the gateway ended with status {status}")
        serving.start_gateway()
        stage.mark("started")
        clients.wait_for_answers()
        waiting = [s for s in clients.samples if s.begin < begin < s.begin + s.seconds]
        for sample in list(clients.lost):
            if begin - UNACCEPTED_SECONDS < sample.begin and sample.outcome.startswith("no answer"):
                clients.count_as_refused(sample)
    clients.check_none_lost(allow_refused=True)
    check(waiting, "no request waited at SIGTERM")
    return (
        f"{len(waiting)} requests were being answered at SIGTERM; it ended {spent:.1f} s later; "
        f"{len(clients.refused)} connections were refused until the next gateway listened"
    )


def step_clock(stage: Stage) -> str:
    """Move the clock of gateway, TorchServe and worker while requests wait."""
    clock = stage.folder / "clock"
    _set_clock(clock, 0)
    with (
        _clock_of_its_own(clock) as environment,
        stage.serving(environment) as serving,
        stage.sending(serving) as clients,
    ):
        for seconds in JUMPS:
            stage.mark(f"{seconds:+d} s")
            _set_clock(clock, seconds)
            wait_until(
                functools.partial(_is_off_by, serving, seconds), 10, "the gateway's clock is right"
            )
            clients.wait_for_answers()
        resent = serving.metric("gateway_pictures_resent_total")
    clients.check_none_lost()
    return (
        f"jumps to {', '.join(f'{seconds:+d} s' for seconds in JUMPS)}; {resent:g} pictures were "
        "sent once more"
    )


@contextlib.contextmanager
def _clock_of_its_own(file: Path) -> Iterator[dict[str, str]]:
    """Variables for processes that shall see the time that a file says: libfaketime's.

    The program `faketime` sets them for one command. Here that command sleeps, and its variables
    are given to the servers, because its end would be the end of the memory that they share.

    Args:
        file: Seconds from the true time, such as `+120`.

    Raises:
        Skipped: The program is not installed.
    """
    if shutil.which("faketime") is None:
        raise Skipped("the program faketime is not installed (Debian: apt-get install faketime)")
    command = ["faketime", "-m", "-f", "+0", "sleep", "infinity"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as owner:
        process = psutil.Process(owner.pid)

        def sleeping() -> list[psutil.Process]:
            return [each for each in process.children() if each.name() == "sleep"]

        try:
            wait_until(sleeping, 10, "faketime does not run its command")
            found = sleeping()[0].environ()
            yield {
                "LD_PRELOAD": found["LD_PRELOAD"],
                "FAKETIME_SHARED": found["FAKETIME_SHARED"],
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nobody can set it
            }
        finally:
            for each in sleeping() or [process]:
                each.terminate()  # then faketime removes the memory, and ends


def _set_clock(file: Path, seconds: int) -> None:
    """Show the processes another time from now on; no process ever reads half of the file."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.replace(file)


def _is_off_by(serving: Serving, seconds: int) -> bool:
    """Whether the clock of the gateway is so many seconds ahead of the true one."""
    date = serving.get("/healthz").headers["Date"]  # renewed every second
    seen = email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    return abs(seen - seconds) < 30


CASES = [
    Case(
        "torchserve-killed",
        "SIGKILL to TorchServe, which is started again at once",
        "no request lost: those in flight are sent once more, the others wait for up to "
        "GATEWAY_RESTART_SECONDS",
        kill_torchserve,
    ),
    Case(
        "drain",
        "SIGTERM to the gateway under load, then the next gateway is started",
        "no accepted request lost; exit status 0",
        drain,
    ),
    Case(
        "clock",
        "the clock jumps by minutes and hours, forward and back",
        "no request lost",
        step_clock,
    ),
]
