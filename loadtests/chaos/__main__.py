"""Breaks a running captioner in every way that it must survive, and checks what becomes of it.

    python -m loadtests.chaos [--only NAME ...] [--archive FILE] [--out DIR]
    python -m loadtests.chaos --list
    python -m loadtests.chaos --docs

Writes `chaos.json`, `chaos.md` and `chaos.png` (latency over time) into `reports/chaos/`; the exit
status is 1 if a case failed. All of it takes ten minutes or more. `--docs` runs nothing: it puts
the table of the last run into `docs/operations.md`.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from deploy.captioner import SHIPPED
from deploy.errors import ServeError
from deploy.properties import ROOT
from loadtests.chaos import (
    archive_faults,
    connection_faults,
    machine_faults,
    report,
    server_faults,
    worker_faults,
)
from loadtests.chaos.case import Case, Failed, Outcome, Skipped
from loadtests.chaos.clients import draw_pictures
from loadtests.chaos.stage import Stage

CASES = [
    *worker_faults.CASES,
    *server_faults.CASES,
    *machine_faults.CASES,
    *connection_faults.CASES,
    *archive_faults.CASES,
]
#: The page with the table.
PAGE = ROOT / "docs" / "operations.md"
#: Pictures that the clients send in turn.
PICTURES = 8


def run(case: Case, stage: Stage) -> Outcome:
    """Run one case.

    Args:
        case: The case.
        stage: Where; its folder is emptied before.
    """
    shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(parents=True)
    begin = time.monotonic()
    try:
        result, seen = "passed", case.run(stage)
    except Skipped as reason:
        result, seen = "skipped", str(reason)
    except (Failed, ServeError) as error:
        result, seen = "failed", str(error)
    except Exception as error:  # a fault of the case: the others run all the same
        Console(stderr=True).print_exception()
        result, seen = "failed", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - begin
    clients = stage.clients
    if clients is None:
        return Outcome(case, result, seen, 0, 0, 0.0, seconds)
    requests, lost = len(clients.samples), len(clients.lost)
    return Outcome(case, result, seen, requests, lost, clients.slowest, seconds)


def build_archive(folder: Path) -> Path:
    """Make the archive of the captioner that comes with the repository.

    Raises:
        ServeError: It cannot be made.
    """
    artifact, archive = folder / "artifact", folder / "clipcap.mar"
    for module, *words in (
        ("training.export", "--checkpoint", SHIPPED, "--out", artifact),
        ("training.archive", "--artifact", artifact, "--out", archive),
    ):
        done = subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False)
        if done.returncode:
            raise ServeError(f"{module} failed with status {done.returncode}; see the lines above")
    return archive


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names, or all.

    Raises:
        ServeError: There is no case of a name.
    """
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names if name not in known]:
        raise ServeError(f"there is no case {unknown[0]}; known: {', '.join(known)}")
    return [case for case in CASES if not names or case.name in names]


def main() -> int:
    """Run the cases and write the report.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m loadtests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a case")
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    parser.add_argument("--docs", action="store_true", help="write the last run's table and end")
    parser.add_argument("--archive", type=Path, help="instead of the shipped captioner's")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "chaos")
    given = parser.parse_args()
    console = Console()
    # Not the end at once: the servers of a case are to be stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cases = chosen(given.only)
        if given.list:
            report.print_cases(console, cases)
            return 0
        if given.docs:
            report.write_page(PAGE, given.out / "chaos.json")
            return 0
        work = given.out.resolve() / "work"
        work.mkdir(parents=True, exist_ok=True)
        archive = given.archive or build_archive(work)
        if not archive.is_file():
            raise ServeError(f"{archive} does not exist; give another --archive")
        pictures = draw_pictures(PICTURES)
        outcomes, stages = [], []
        for number, case in enumerate(cases, start=1):
            console.print(f"{number}/{len(cases)} {case.name}: {case.fault} ...", markup=False)
            stages.append(Stage(work / case.name, archive, pictures))
            outcomes.append(run(case, stages[-1]))
            report.write(given.out, outcomes)
            console.print(f"   {outcomes[-1].result}: {outcomes[-1].seen}", markup=False)
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report.print_outcomes(console, outcomes)
    report.write_plot(given.out / "chaos.png", outcomes, stages)
    failed = [each.case.name for each in outcomes if each.result == "failed"]
    print(f"{'failed: ' + ', '.join(failed) if failed else 'passed'}; report: {given.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
