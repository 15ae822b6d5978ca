"""Ray Serve beside TorchServe: the same captioner, threads and batches, with a client that is busy.

    python -m benchmarks.ray_serve --artifact build/artifact

Both servers run at the same time, and rounds of each take turns, so that whatever else the machine
does falls on both. A round keeps two batches of requests under way (`images_per_second`), then asks
one request at a time (`alone_ms`). It prints a table and writes `ray-serve.json` into
`benchmarks/results/KIND`; with `--page docs/ray-serve.md` it writes the table there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.clients import one_client, saturated
from benchmarks.figures import measured, write_figures
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.pages import table
from benchmarks.real_size import draw_jpegs
from benchmarks.serve import SIZE, serving, shipped_values
from deploy.ports import on_free_ports
from handler.caption_settings import cores
from model.refusal import Refusal
from training.archive import archive
from training.command import command


@contextlib.contextmanager
def ray_serving(artifact: Path) -> Iterator[str]:
    """Serve an artifact with `python -m scale.serve`, one replica of all threads; its address.

    Raises:
        Refusal: It does not start.
    """
    port = int(on_free_ports()["inference_address"].rpartition(":")[2])
    with tempfile.TemporaryFile("w+") as log:
        words = ["--artifact", str(artifact), "--port", str(port), "--threads", str(cores())]
        server = subprocess.Popen(
            [sys.executable, "-m", "scale.serve", *words],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            # Otherwise Ray would give way to TorchServe and to the client.
            env={**os.environ, "RAY_worker_niceness": "0"},
        )
        try:
            while True:
                log.seek(0)
                if "is served at" in (said := log.read()):
                    break
                if server.poll() is not None:
                    raise Refusal(f"Ray Serve does not start: {said[-500:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(120)


def measure(artifact: Path, rounds: int, bursts: int, count: int) -> dict[str, Any]:
    """Rounds of both servers in turn.

    Args:
        artifact: The captioner.
        rounds: Of each server.
        bursts: Batches that a round counts.
        count: Requests of a client that is alone, in a round.
    """
    images, batch = draw_jpegs(SIZE, 16), shipped_values()["batchSize"]
    with tempfile.TemporaryDirectory(prefix="clipcap-ray-serve-") as folder:
        packed = Path(folder) / "clipcap.mar"
        archive(artifact, packed)
        with serving(packed) as (server, _), ray_serving(artifact) as address:
            addresses = {"TorchServe": server.rest, "Ray Serve": address}
            rates: dict[str, list[float]] = {name: [] for name in addresses}
            seconds: dict[str, list[float]] = {name: [] for name in addresses}
            for turn in range(rounds):
                for name in list(addresses)[:: -1 if turn % 2 else 1]:
                    rates[name].append(saturated(addresses[name], images, batch, bursts))
                    seconds[name] += one_client(addresses[name], images, count)
    ratios = [ray / ours for ours, ray in zip(*rates.values(), strict=True)]
    return {
        "threads": cores(),
        "batch": batch,
        "images_per_second": {n: round(statistics.median(own), 2) for n, own in rates.items()},
        "rounds": {name: [round(rate, 2) for rate in own] for name, own in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "alone_ms": {n: round(1e3 * statistics.median(own), 1) for n, own in seconds.items()},
    }


def report(written: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    columns = {"": "{name}", "pictures/s": "{rate:.1f}", "a client alone, ms": "{alone:.0f}"}
    rows = [
        {"name": name, "rate": rate, "alone": written["alone_ms"][name]}
        for name, rate in written["images_per_second"].items()
    ]
    rounds = len(written["rounds"]["Ray Serve"])
    return (
        f"{measured(written)}\n\n{table(columns, rows)}\n\nWith full batches Ray Serve gives "
        f"{written['ratio']:.2f} times the captions of TorchServe (the median of {rounds} rounds)."
    )


def main() -> None:
    """Measure, print and write."""
    parser = options_parser(__doc__)
    parser.add_argument("--artifact", type=Path, required=True, help="an exported captioner")
    parser.add_argument("--rounds", type=int, default=5, help="of each server (5)")
    parser.add_argument("--bursts", type=int, default=4, help="batches that a round counts (4)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page that gets the figures")
    given = parser.parse_args()
    results = measure(given.artifact, given.rounds, given.bursts, 6)
    file = results_folder() / "ray-serve.json"
    written = write_results(file, command_line("benchmarks.ray_serve"), results)
    print(report(written))
    if given.page:
        write_figures(given.page, "benchmarks.ray_serve", report(written))


if __name__ == "__main__":
    command(main)
