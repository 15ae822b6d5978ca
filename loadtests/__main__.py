"""Starts servers of its own, runs a profile of load against them, and compares the figures.

    python -m loadtests [PROFILE] [--part 0.1] [--archive FILE] [--pictures DIR] [--out DIR]

The profiles and the limits of their figures are in `thresholds.yaml`; without a name it is
`torchserve`. Writes into the folder DIR/PROFILE: `summary.json`, `table.md`, `plot.png`,
`report.html` (Locust's own), `requests.csv` and `samples.csv`, and the logs of the servers. The
exit status is 1 if a figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.machine import processor
from deploy.errors import ServeError
from deploy.properties import ROOT
from handler.caption_settings import cores
from loadtests.figures import measure
from loadtests.profiles import THRESHOLDS, LoadTestError, Profile, read_profiles
from loadtests.records import Span, read_records
from loadtests.report import plot, tables
from loadtests.run import Run
from loadtests.samples import Sampler, write_samples
from loadtests.servers import running

HERE = Path(__file__).parent
DEFAULT = "torchserve"


def run(
    profile: Profile, archive: Path, pictures: Path, out: Path, part: float = 1.0
) -> dict[str, Any]:
    """Start servers, send them the load of a profile, and stop them.

    Args:
        profile: The load and its limits.
        archive: The `.mar` file to serve.
        pictures: Folder of pictures to send.
        out: Folder for all that is written.
        part: Of the length of each stage.

    Returns:
        The content of `summary.json`.

    Raises:
        ServeError: A server does not start.
        LoadTestError: Locust does not run.
    """
    out.mkdir(parents=True, exist_ok=True)
    server_folder = (out / "server").resolve()
    with running(server_folder, archive, profile.clients, gateway=profile.gateway) as servers:
        with Sampler(servers.processes) as sampler, tempfile.TemporaryDirectory() as private:
            given = Run(
                profile=profile.shortened(part),
                torchserve=servers.torchserve.rest,
                keys=dict(servers.keys),
                pictures=pictures.resolve(),
                seed=int(yaml.safe_load(THRESHOLDS.read_text())["seed"]),
                records=(out / "requests.csv").resolve(),
                spans=Path(private) / "spans.json",
            )
            given.write(Path(private) / "run.json")
            _locust(servers.address, Path(private) / "run.json", out, sampler)
            spans = [Span(**each) for each in json.loads(given.spans.read_text())]
        survived = servers.survived()
    records = read_records(given.records)
    write_samples(out / "samples.csv", sampler.samples)
    figures = measure(records, spans, sampler.samples)
    problems = judge(figures, profile.limits)
    if not survived:
        problems.append("a server or a worker ended during the run; see the logs in server/logs")
    result = {
        "profile": profile.name,
        "about": profile.about,
        "passed": not problems,
        "problems": problems,
        "part": part,
        "cores": cores(),
        "processor": processor(),
        "date": datetime.date.today().isoformat(),
        "users": max(stage.users for stage in profile.stages),
        "limits": dict(profile.limits),
        "figures": figures,
    }
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "table.md").write_text(tables(result))
    plot(out / "plot.png", f"{profile.name}: {profile.about}", records, spans, sampler.samples)
    return result


def judge(figures: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """A line for each figure that is beyond its limit; empty if the run passed.

    Args:
        figures: Name -> value.
        limits: `max_` or `min_` and a name -> limit.
    """
    problems = []
    for name, limit in limits.items():
        kind, _, figure = name.partition("_")
        shown = figure.replace("_", " ")
        value = figures.get(figure)
        if value is None:
            problems.append(f"{shown}: not measured, because the run had nothing to measure it on")
        elif kind == "max" and value > limit:
            problems.append(f"{value:g} {shown}; the limit is {limit:g}")
        elif kind == "min" and value < limit:
            problems.append(f"{value:g} {shown}; at least {limit:g} are wanted")
    return problems


def _locust(address: str, given: Path, out: Path, sampler: Sampler) -> None:
    """Run Locust in a process of its own, because it patches the whole interpreter."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", HERE / "locustfile.py", "--headless"),
            *("--host", address, "--stop-timeout", "70", "--only-summary"),
            *("--html", out / "report.html", "--exit-code-on-error", "0"),
        ],
        cwd=ROOT,
        env={**os.environ, "LOADTEST_RUN": str(given)},
    )
    try:
        sampler.add("locust", psutil.Process(process.pid))
        status = process.wait()
    finally:
        process.kill()
        process.wait()
    if status:
        raise LoadTestError(f"Locust ended with status {status}; see the lines above")


def main() -> int:
    """Run a profile and print its figures.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("profile", nargs="?", default=DEFAULT, help="a profile of thresholds.yaml")
    parser.add_argument("--part", type=float, default=1.0, help="of the length of each stage")
    parser.add_argument("--archive", type=Path, default=ROOT / "model_store" / "clipcap.mar")
    parser.add_argument("--pictures", type=Path, default=ROOT / "data" / "scenes" / "images")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "loadtest")
    given = parser.parse_args()
    if not 0 < given.part <= 1:
        parser.error(f"--part is {given.part:g}; it must be above 0 and at most 1")
    # As Ctrl-C does: the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        profiles = read_profiles()
        if given.profile not in profiles:
            parser.error(f"there is no profile {given.profile!r}; known: {', '.join(profiles)}")
        out = given.out / given.profile
        chosen = profiles[given.profile]
        result = run(chosen, given.archive, given.pictures, out, given.part)
    except (ServeError, LoadTestError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((out / "table.md").read_text())
    for problem in result["problems"]:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{'passed' if result['passed'] else 'failed'}: see {out}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
