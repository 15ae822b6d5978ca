"""What serving costs beside the captioner itself, and which settings of TorchServe are best.

`python -m benchmarks.serve` packs a captioner of real size with random weights (ViT-B/32, GPT-2
124M; `benchmarks.real_size`), which writes captions of exactly 20 tokens with 5 beams. It serves it
as `make serve` does, loads it, prints tables, and writes `serve.json` and `serve.png` into
`benchmarks/results/KIND` of processor. Five parts, each of which `--only` measures anew alone:

    memory  a worker's memory and the time to READY, for each precision
    grid    images a second by workers, threads and batch size
    delay   how long a request waits for others: latency of one client, and at half the capacity
    speed   REST and gRPC against the same handler and the bare model, in processes of their own
    load    latency and throughput as requests come at random, from a quarter to 1.5 of capacity

Clients, server and model share this machine's cores. `python -m benchmarks.tables` writes
`docs/serving-speed.md` from the file of results.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import truediv
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import machine, results_folder, served
from benchmarks.pictures import draw_pictures
from benchmarks.serve_load import arriving, one_client, saturated
from benchmarks.serve_setup import (
    LARGE,
    USUAL,
    InProcess,
    Request,
    Values,
    make_archive,
    resident,
    serving,
    weights_mb,
)
from benchmarks.serve_tables import draw, tables, targets
from benchmarks.target import target_table
from client import CaptionError
from deploy.errors import ServeError
from deploy.properties import CONFIG, read_properties
from handler.caption_settings import cores
from model.layers.precision import PRECISIONS, available
from model.refusal import Refusal
from training.command import command

BATCHES = (1, 4, 8, 16)
DELAYS = (0, 5, 20, 50)
#: Parts of the capacity that are offered.
LOADS = (0.25, 0.5, 0.7, 0.9, 1.5)
#: Requests that TorchServe lets wait.
QUEUE = int(read_properties(CONFIG)["job_queue_size"])


class Benchmark:
    """The parts, each a method that returns what goes into the results under its name.

    Args:
        folder: Where archives are kept.
        work: An empty folder.
        precision: What all parts but `memory` serve.
        quick: A tiny captioner and few requests: to try the command, not to measure.
    """

    def __init__(self, folder: Path, work: Path, precision: str, quick: bool) -> None:
        self.folder, self.work, self.quick = folder, work, quick
        self.archive = make_archive(folder, precision, quick)
        self.files = draw_pictures(work, USUAL, 4 if quick else 16)
        self.pictures = [file.read_bytes() for file in self.files]
        self.shipped = Values.shipped()
        self.rounds = 1 if quick else 4
        self.precisions = (precision,) if quick else available()

    def memory(self) -> list[dict[str, Any]]:
        """One start for each precision."""
        rows = []
        for precision in self.precisions:
            archive = make_archive(self.folder, precision, self.quick)
            with serving(archive, self.shipped) as (server, took):
                rate = self._capacity(server.rest, self.shipped, 1 if self.quick else 4.0)
                rows.append(
                    {
                        "precision": precision,
                        "weights_mb": weights_mb(archive),
                        **took,
                        "serving_mb": max(resident(each)[0] for each in server.workers()),
                        "images_per_second": round(rate, 2),
                    }
                )
        return rows

    def grid(self) -> list[dict[str, Any]]:
        """Capacity by workers x threads and batch size."""
        shapes = sorted({(1, cores()), (cores(), 1)})
        batches = (2,) if self.quick else BATCHES
        rows = []
        for (workers, threads), batch in itertools.product(shapes, batches):
            values = Values(workers, threads, batch, self.shipped.delay)
            with serving(self.archive, values) as (server, took):
                rate = self._capacity(server.rest, values, 1 if self.quick else 6.0)
                rows.append(
                    {
                        "workers": workers,
                        "threads": threads,
                        "batch": batch,
                        "images_per_second": round(rate, 2),
                        **took,
                    }
                )
        return rows

    def delay(self) -> list[dict[str, Any]]:
        """Latency by `maxBatchDelay`, alone and at half of the capacity."""
        rows = []
        capacity = 0.0
        for delay in (0,) if self.quick else DELAYS:
            values = Values(self.shipped.workers, self.shipped.threads, self.shipped.batch, delay)
            with serving(self.archive, values) as (server, _):
                capacity = capacity or self._capacity(server.rest, values, 6.0)
                alone = one_client(server.rest, self.pictures, 3 if self.quick else 10)
                half = arriving(
                    server.rest, self.pictures, capacity / 2, 1 if self.quick else 15, seed=1
                )
                rows.append(
                    {
                        "delay_ms": delay,
                        "alone_p50_ms": _ms(alone),
                        "half_p50_ms": half["p50_ms"],
                        "half_p99_ms": half["p99_ms"],
                        "half_failed": half["sent"] - half["captioned"],
                    }
                )
        return rows

    def speed(self) -> dict[str, Any]:
        """Rounds of handler, doors and model, there and back: what else runs here hits all."""
        batch = self.shipped.batch
        files = itertools.islice(itertools.cycle(self.files), batch)
        requests: list[Request] = [(file, {}) for file in files]
        rates: dict[str, list[float]] = {"handler": [], "REST": [], "gRPC": [], "model": []}
        alone: dict[str, list[float]] = {name: [] for name in rates}
        with contextlib.ExitStack() as stack:
            server, _ = stack.enter_context(serving(self.archive, self.shipped))
            inside = [
                stack.enter_context(InProcess(self.archive, self.shipped, self.work / f"w{place}"))
                for place in range(self.shipped.workers)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(len(inside)))
            doors = {"REST": server.rest, "gRPC": server.grpc}
            whole: dict[str, Sequence[Request] | int] = {"handler": requests, "model": batch}
            single: dict[str, Sequence[Request] | int] = {"handler": requests[:1], "model": 1}

            def together(name: str, times: int) -> float:
                """Images a second of as many processes as there are workers, all at work."""
                asked = [pool.submit(each.seconds, name, whole[name], times) for each in inside]
                return sum(batch * times / sum(each.result()) for each in asked)

            for name in whole:
                inside[0].seconds(name, single[name], 2)
                once = len(inside) * batch / together(name, 2)
            times = 2 if self.quick else max(2, round(5.0 / once))
            count = 2 if self.quick else 6
            for turn in range(self.rounds):
                for name in list(rates)[:: -1 if turn % 2 else 1]:
                    if name in doors:
                        rates[name].append(self._capacity(doors[name], self.shipped, times * once))
                        alone[name] += one_client(doors[name], self.pictures, count)
                    else:
                        rates[name].append(together(name, times))
                        alone[name] += inside[0].seconds(name, single[name], count)
            decode = {
                f"{width} x {height}": {
                    "decode_ms": _ms(inside[0].seconds("decode", pictures[:1], 8)),
                    "handler_ms": round(
                        1000 * min(inside[0].seconds("handler", pictures, 2)) / batch, 1
                    ),
                }
                for (width, height), pictures in (
                    (USUAL, requests),
                    (LARGE, [(file, {}) for file in draw_pictures(self.work, LARGE, 1) * batch]),
                )
            }
            greedy = [(file, {"num_beams": "1"}) for file, _ in requests[: batch // 2]]
            others = requests[batch // 2 :]
            mixes = {"greedy": greedy, "beams": others, "together": greedy + others}
            mixed: dict[str, list[float]] = {name: [] for name in mixes}
            for _ in range(1 if self.quick else 5):
                for name, mix in mixes.items():
                    mixed[name] += inside[0].seconds("handler", mix, 1)
        return {
            "batch": batch,
            "images_per_second": {
                name: round(statistics.median(each), 2) for name, each in rates.items()
            },
            # Of one round each, as the machine's own speed changes from one to the next.
            "share": {
                name: round(statistics.median(map(truediv, each, rates["handler"])), 3)
                for name, each in rates.items()
            },
            "rounds": {name: [round(rate, 2) for rate in each] for name, each in rates.items()},
            "alone_ms": {name: _ms(each) for name, each in alone.items()},
            "decode": decode,
            "mixed_ms": {name: _ms(each) for name, each in mixed.items()},
        }

    def load(self) -> dict[str, Any]:
        """Open-loop loads, the lightest first; then whether the same workers still answer."""
        rows = []
        with serving(self.archive, self.shipped) as (server, _):
            workers = server.workers()
            capacity = self._capacity(server.rest, self.shipped, 1 if self.quick else 8.0)
            for share in (0.5, 1.5) if self.quick else LOADS:
                # Beyond the capacity it takes a while until as many wait as may.
                filling = QUEUE / ((share - 1) * capacity) if share > 1 else 0.0
                seconds = 1.0 if self.quick else 20.0 + filling
                row = arriving(server.rest, self.pictures, share * capacity, seconds, seed=1)
                rows.append({"share": share, **row})
            one_client(server.rest, self.pictures, 1)
            return {
                "capacity": round(capacity, 2),
                "workers_survived": server.workers() == workers,
                "loads": rows,
            }

    def _capacity(self, address: str, values: Values, seconds: float) -> float:
        """Images a second with batches always full."""
        burst = values.batch * values.workers
        return saturated(address, self.pictures, burst + values.batch, burst, seconds)


def _ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def main() -> None:
    """Measure the parts asked for; write results, picture and tables."""
    parts: dict[str, Callable[[Benchmark], Any]] = {
        "memory": Benchmark.memory,
        "grid": Benchmark.grid,
        "delay": Benchmark.delay,
        "speed": Benchmark.speed,
        "load": Benchmark.load,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=PRECISIONS, default=served(), help="what is served")
    parser.add_argument("--only", choices=parts, nargs="+", help="parts to measure; others stay")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, few requests")
    parser.add_argument("--archives", type=Path, help="folder that keeps the archives made")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    options = parser.parse_args()
    file = options.out / "serve.json"
    if options.quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give it another folder with --out")
    kept = options.only and file.is_file()
    results: dict[str, Any] = json.loads(file.read_text()) if kept else {}
    where = {**machine("benchmarks.serve"), "precision": options.precision}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clipcap-serve-") as temporary:
        archives = options.archives or Path(temporary, "archives")
        archives.mkdir(parents=True, exist_ok=True)
        benchmark = Benchmark(archives, Path(temporary), options.precision, options.quick)
        try:
            for name in options.only or parts:
                measured = parts[name](benchmark)
                shipped = vars(benchmark.shipped)
                results[name] = {**where, "shipped": shipped, "measured": measured}
                file.write_text(json.dumps(results, indent=2) + "\n")
        except (ServeError, CaptionError) as error:
            raise Refusal(str(error)) from error
    if "load" in results:
        draw(options.out / "serve.png", results)
    console = Console(width=110)
    for _, table in tables(results):
        console.print(table.rich())
    console.print(target_table(targets(results)).rich())


if __name__ == "__main__":
    command(main)
