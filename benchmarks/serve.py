"""What TorchServe costs beside the captioner, and how it behaves under load.

`python -m benchmarks.serve` packs a captioner of real size with random weights
(`benchmarks.real_size`), which writes captions of exactly 20 tokens with 5 beams. It serves the
archive as `make serve` does, sends requests, prints tables, and writes `serve.json` into
`benchmarks/results/KIND`. The parts, of which `--only` measures some anew:

    speed   REST and gRPC beside the same handler and the bare model, in processes of their own;
            a worker's memory and its time to READY
    load    latency and throughput with requests at random moments, 25% to 150% of capacity

Served are the settings of `handler/model-config.yaml`. Clients, server and model share the cores of
one machine. `python -m benchmarks.readme` then writes `docs/serving-speed.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks.machine import command_line, machine, results_folder, served_precision
from benchmarks.real_size import draw_jpegs
from benchmarks.serve_setup import (
    arriving,
    make_archive,
    one_client,
    saturated,
    serving,
    shipped_values,
    weights_mb,
)
from benchmarks.served_in_process import InProcess, Request
from benchmarks.serving_page import serve_tables
from client import CaptionError
from deploy.errors import ServeError
from deploy.properties import CONFIG, read_properties
from deploy.torchserve import THREAD_ENVIRONMENT
from model.layers.precision import PRECISIONS
from model.refusal import Refusal
from training.command import command

PARTS = ("speed", "load")
#: Offered load, as shares of the capacity.
LOADS = (0.25, 0.5, 0.7, 0.9, 1.5)
#: Width and height of the JPEG files, in pixels.
SIZE = (640, 480)
#: Requests that TorchServe lets wait.
QUEUE = int(read_properties(CONFIG)["job_queue_size"])


class Benchmark:
    """The parts, each a method that returns its results.

    Args:
        archive: What is served.
        work: An empty folder.
        quick: Few requests, to try the command.
    """

    def __init__(self, archive: Path, work: Path, quick: bool) -> None:
        self.archive, self.work, self.quick = archive, work, quick
        values = shipped_values()
        self.workers, self.batch = values["minWorkers"], values["batchSize"]
        self.files = draw_jpegs(work, SIZE, 4 if quick else 16)
        self.images = [file.read_bytes() for file in self.files]

    def speed(self) -> dict[str, Any]:
        """Rounds of handler, REST, gRPC and model, so that other load of the machine hits all."""
        batch = self.batch
        files = itertools.islice(itertools.cycle(self.files), batch)
        requests: list[Request] = [(file, {}) for file in files]
        rates: dict[str, list[float]] = {"handler": [], "REST": [], "gRPC": [], "model": []}
        alone: dict[str, list[float]] = {name: [] for name in rates}
        with contextlib.ExitStack() as stack:
            server, cost = stack.enter_context(serving(self.archive))
            inside = [
                stack.enter_context(
                    InProcess(self.archive, THREAD_ENVIRONMENT, self.work / f"w{number}")
                )
                for number in range(self.workers)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(len(inside)))
            addresses = {"REST": server.rest, "gRPC": server.grpc}

            def together(kind: str, times: int) -> float:
                """Images a second of as many processes as there are workers, all at work."""
                asked = [pool.submit(each.seconds, kind, requests, times) for each in inside]
                return sum(batch * times / sum(each.result()) for each in asked)

            for kind in ("handler", "model"):
                inside[0].seconds(kind, requests[:1], 2)
                once = len(inside) * batch / together(kind, 2)
            times = 2 if self.quick else max(2, round(5.0 / once))
            count = 2 if self.quick else 6
            for turn in range(1 if self.quick else 4):
                for name in list(rates)[:: -1 if turn % 2 else 1]:
                    if name in addresses:
                        rate = self._capacity(addresses[name], times * once)
                        alone[name] += one_client(addresses[name], self.images, count)
                    else:
                        rate = together(name, times)
                        alone[name] += inside[0].seconds(name, requests[:1], count)
                    rates[name].append(rate)
            greedy = [(file, {"num_beams": "1"}) for file, _ in requests[: batch // 2]]
            beams = requests[batch // 2 :]
            mixes = {"greedy": greedy, "beams": beams, "together": greedy + beams}
            mixed: dict[str, list[float]] = {name: [] for name in mixes}
            for _ in range(1 if self.quick else 5):
                for name, mix in mixes.items():
                    mixed[name] += inside[0].seconds("handler", mix, 1)
        return {
            "batch": batch,
            "worker": {"weights_mb": weights_mb(self.archive), **cost},
            "images_per_second": {
                name: round(statistics.median(each), 2) for name, each in rates.items()
            },
            # Each within one round: the machine's own speed changes from round to round.
            "share": {
                name: round(statistics.median(map(truediv, each, rates["handler"])), 3)
                for name, each in rates.items()
            },
            "rounds": {name: [round(rate, 2) for rate in each] for name, each in rates.items()},
            "alone_ms": {name: _ms(each) for name, each in alone.items()},
            "mixed_ms": {name: _ms(each) for name, each in mixed.items()},
        }

    def load(self) -> dict[str, Any]:
        """Open loops, the lightest load first; then whether the same workers still answer."""
        rows = []
        with serving(self.archive) as (server, _):
            workers = server.workers()
            capacity = self._capacity(server.rest, 8.0)
            for share in (0.5, 1.5) if self.quick else LOADS:
                # Above the capacity it takes this long until the queue is full.
                filling = QUEUE / ((share - 1) * capacity) if share > 1 else 0.0
                seconds = 1.0 if self.quick else 20.0 + filling
                row = arriving(server.rest, self.images, share * capacity, seconds, seed=1)
                rows.append({"share": share, **row})
            one_client(server.rest, self.images, 1)
            return {
                "capacity": round(capacity, 2),
                "workers_survived": server.workers() == workers,
                "loads": rows,
            }

    def _capacity(self, address: str, seconds: float) -> float:
        """Images a second with full batches; a quick run takes 1 second for it."""
        burst = self.batch * self.workers
        seconds = min(seconds, 1.0) if self.quick else seconds
        return saturated(address, self.images, burst + self.batch, burst, seconds)


def _ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def main() -> None:
    """Measure the parts asked for; write the results, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=served_precision(), help="what is served"
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", help="parts to measure; others stay")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, few requests")
    parser.add_argument("--archives", type=Path, help="folder that keeps the archives made")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    options = parser.parse_args()
    if options.quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give another folder with --out DIR")
    file = options.out / "serve.json"
    kept = options.only and file.is_file()
    results: dict[str, Any] = json.loads(file.read_text()) if kept else {}
    where = {**machine(command_line("benchmarks.serve")), "precision": options.precision}
    where["values"] = shipped_values()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clipcap-serve-") as temporary:
        archives = options.archives or Path(temporary, "archives")
        archives.mkdir(parents=True, exist_ok=True)
        archive = make_archive(archives, options.precision, options.quick)
        benchmark = Benchmark(archive, Path(temporary), options.quick)
        try:
            for name in options.only or PARTS:
                measured = getattr(benchmark, name)()
                results[name] = {**where, "measured": measured}
                file.write_text(json.dumps(results, indent=2) + "\n")
        except (ServeError, CaptionError) as error:
            raise Refusal(str(error)) from error
    for _, table in serve_tables(results):
        print(f"{table.section()}\n")


if __name__ == "__main__":
    command(main)
