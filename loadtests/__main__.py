"""Starts a server, runs the load test against it, and compares the figures with `thresholds.yaml`.

    python -m loadtests [--archive FILE] [--seconds N] [--users N] [--out DIR]

Writes `report.html` (Locust's own) and `summary.json`; the exit status is 1 if a figure is beyond
its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import yaml

from deploy.errors import ServeError
from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config
from deploy.torchserve import TorchServe

HERE = Path(__file__).parent
#: Figures with an upper limit.
CEILINGS = (
    "wrong_replies",
    "ties_percent",
    "unanswered",
    "median_ms",
    "p95_ms",
    "worker_growth_mb",
)


def run(archive: Path, limits: dict[str, Any], pictures: Path, out: Path) -> dict[str, Any]:
    """Start a server, send it the load, and stop it.

    Args:
        archive: The `.mar` file to serve.
        limits: The values of `thresholds.yaml`.
        pictures: Folder of pictures to send.
        out: Where `report.html`, Locust's log and the server's folder go.

    Returns:
        The figures of the run, under the names that `judge` compares.

    Raises:
        ServeError: The server does not start, or Locust does not run.
    """
    folder = (out / "server").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = derived_config(folder / "config.properties", on_free_ports())
    server = TorchServe(folder, archive.resolve(), config)
    server.start()
    try:
        before = server.workers()
        settled: dict[int, int] = {}
        begun, ended = out / "begun", threading.Event()
        begun.unlink(missing_ok=True)

        def measure_settled() -> None:
            """Measure memory after a quarter of the load.

            The first full batches allocate memory that the worker keeps; that is no growth.
            """
            while not begun.exists():
                if ended.wait(0.1):
                    return
            if not ended.wait(limits["seconds"] / 4):
                settled.update(_resident(server))

        measuring = threading.Thread(target=measure_settled)
        measuring.start()
        try:
            statistics = _locust(server.rest, limits, pictures, out, begun)
        finally:
            ended.set()
            measuring.join()
            begun.unlink(missing_ok=True)
        after = _resident(server)
        same = before == list(after) and settled.keys() == after.keys()
        growth = max(after[worker] - settled[worker] for worker in settled) if same else 0
    finally:
        server.stop()
    return {**statistics, "worker_survived": same, "worker_growth_mb": round(growth / 1e6, 1)}


def _resident(server: TorchServe) -> dict[int, int]:
    """Resident bytes of each worker."""
    return {worker: psutil.Process(worker).memory_info().rss for worker in server.workers()}


def judge(figures: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    """A line for each figure that is beyond its limit; empty if the run passed."""
    problems = [
        f"{figures[name]:g} {name.replace('_', ' ')}; the limit is {limits[f'max_{name}']:g}"
        for name in CEILINGS
        if figures[name] > limits[f"max_{name}"]
    ]
    if figures["requests_per_second"] < limits["min_requests_per_second"]:
        problems.append(
            f"{figures['requests_per_second']:g} requests per second; "
            f"at least {limits['min_requests_per_second']:g} are wanted"
        )
    if not figures["worker_survived"]:
        problems.append("a worker was restarted")
    return problems


def _locust(
    host: str, limits: dict[str, Any], pictures: Path, out: Path, begun: Path
) -> dict[str, Any]:
    """Run Locust in a process of its own, because it patches the whole interpreter.

    It creates the file `begun` when it starts its users.
    """
    figures = out / "locust.json"
    figures.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", HERE / "locustfile.py", "--headless"),
            *("--host", host, "--users", str(limits["users"]), "--spawn-rate", "4"),
            *("--run-time", f"{limits['seconds']}s", "--stop-timeout", "30", "--only-summary"),
            *("--html", out / "report.html", "--exit-code-on-error", "0"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "LOADTEST_PICTURES": str(pictures),
            "LOADTEST_SEED": str(limits["seed"]),
            "LOADTEST_FIGURES": str(figures),
            "LOADTEST_BEGUN": str(begun),
        },
        check=False,
    )
    if done.returncode or not figures.is_file():
        raise ServeError(f"Locust ended with status {done.returncode}; see the lines above")
    found: dict[str, Any] = json.loads(figures.read_text())
    figures.unlink()
    return found


def main() -> int:
    """Run the load test and write the summary.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--archive", type=Path, default=ROOT / "model_store" / "clipcap.mar")
    parser.add_argument("--pictures", type=Path, default=ROOT / "data" / "scenes" / "images")
    parser.add_argument("--seconds", type=int, help="instead of the value in thresholds.yaml")
    parser.add_argument("--users", type=int, help="instead of the value in thresholds.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "loadtest")
    given = parser.parse_args()
    if any(value is not None and value < 1 for value in (given.seconds, given.users)):
        parser.error("--seconds and --users must be 1 or more")
    limits = yaml.safe_load((HERE / "thresholds.yaml").read_text())
    limits |= {name: value for name in ("seconds", "users") if (value := getattr(given, name))}
    try:
        figures = run(given.archive, limits, given.pictures, given.out)
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    problems = judge(figures, limits)
    result = {"passed": not problems, "problems": problems, "limits": limits, "figures": figures}
    (given.out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{'failed' if problems else 'passed'}: {given.out / 'summary.json'}, report.html beside")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
