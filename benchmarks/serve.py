"""What TorchServe costs beside the captioner alone, and how it behaves under load.

`python -m benchmarks.serve` packs a captioner of real size with random weights
(`benchmarks.real_size`), which writes captions of exactly 20 tokens with 5 beams. It serves the
archive as `make serve` does, on free ports, with the settings of `handler/model-config.yaml`.
Clients, server and model share the cores of one machine. It measures in this order:

    worker  memory of a worker, and seconds until it is READY
    speed   rounds of REST, gRPC and the captioner alone, in a process without TorchServe
    load    latency and throughput with requests at random moments, 25% to 150% of capacity

It prints the tables and writes `serve.json` into `benchmarks/results/KIND`. `python -m
benchmarks.readme` then writes `docs/serving-speed.md`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.captioners import caption, ours, write_captioner
from benchmarks.clients import arriving, one_client, saturated
from benchmarks.machine import (
    ROOT,
    OwnProcess,
    command_line,
    options_parser,
    resident,
    results_folder,
    served_precision,
    write_results,
)
from benchmarks.pages import serve_tables
from benchmarks.real_size import BEAMS, draw_jpegs
from client import CaptionError
from deploy.errors import ServeError
from deploy.ports import on_free_ports
from deploy.properties import CONFIG, derived_config, read_properties
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from handler.caption_settings import cores
from model.layers.precision import PRECISIONS
from model.refusal import Refusal
from training.archive import archive
from training.command import command

#: Offered load, as shares of the capacity.
LOADS = (0.25, 0.5, 0.7, 0.9, 1.5)
#: Width and height of the JPEG files, in pixels.
SIZE = (640, 480)
#: Requests that TorchServe lets wait.
QUEUE = int(read_properties(CONFIG)["job_queue_size"])


def shipped_values() -> dict[str, int]:
    """The values of `handler/model-config.yaml` that decide speed, under its own names.

    `threads` of each worker are shared out from the cores if the file has none.
    """
    config = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    values = {name: config[name] for name in ("minWorkers", "batchSize", "maxBatchDelay")}
    threads = max(1, cores() // config["minWorkers"])
    return {**values, "threads": config["handler"].get("threads", threads)}


@contextlib.contextmanager
def serving(file: Path) -> Iterator[tuple[TorchServe, dict[str, float]]]:
    """Serve an archive; stop the server at the end.

    Returns:
        The server, whose workers are all ready, and what its start cost: `weights_mb` of the
        TorchScript file, `ready_seconds` until the last worker is READY, and of the largest worker
        its memory then, `resident_mb`, and its highest until then, `peak_mb`.
    """
    folder = Path(tempfile.mkdtemp(prefix="clipcap-serve-"))
    config = derived_config(folder / "config.properties", on_free_ports())
    server = TorchServe(folder, file.resolve(), config)
    with zipfile.ZipFile(file) as packed:
        cost = {"weights_mb": round(packed.getinfo("captioner.pt").file_size / 1e6, 1)}
    begin = time.monotonic()
    server.start()
    try:
        cost["ready_seconds"] = round(time.monotonic() - begin, 2)
        largest = max((resident(worker) for worker in server.workers()), key=lambda r: r["now"])
        yield server, {**cost, "resident_mb": largest["now"], "peak_mb": largest["peak"]}
    finally:
        server.stop()
    shutil.rmtree(folder)  # not after an error, as it holds the server's logs


def measure_speed(
    server: TorchServe, alone: Callable[[int], float], images: Sequence[bytes], quick: bool
) -> dict[str, Any]:
    """Rounds of REST, gRPC and the captioner alone, so that other load of the machine hits all.

    Args:
        server: What is measured.
        alone: Seconds that the captioner takes for a number of images without TorchServe.
        images: JPEG files.
        quick: One short round.

    Returns:
        `images_per_second` (medians of `rounds`) and `alone_ms` (median of a client that is alone),
        for `REST`, `gRPC` and `model`.
    """
    values = shipped_values()
    batch = values["minWorkers"] * values["batchSize"]
    alone(batch)
    bursts = 1 if quick else max(3, round(8.0 / alone(batch)))
    count, number = (2, 1) if quick else (6, 4)
    addresses = {"model": "", "REST": server.rest, "gRPC": server.grpc}
    rounds: dict[str, list[float]] = {name: [] for name in addresses}
    seconds: dict[str, list[float]] = {name: [] for name in addresses}
    for turn in range(number):
        for name in list(addresses)[:: -1 if turn % 2 else 1]:
            if address := addresses[name]:
                rounds[name].append(saturated(address, images, batch, bursts))
                seconds[name] += one_client(address, images, count)
            else:
                alone(1)
                rounds[name].append(batch * bursts / sum(alone(batch) for _ in range(bursts)))
                seconds[name] += [alone(1) for _ in range(count)]
    return {
        "images_per_second": {n: round(statistics.median(own), 2) for n, own in rounds.items()},
        "rounds": {name: [round(rate, 2) for rate in own] for name, own in rounds.items()},
        "alone_ms": {n: round(1e3 * statistics.median(own), 1) for n, own in seconds.items()},
    }


def measure_load(server: TorchServe, images: Sequence[bytes], quick: bool) -> dict[str, Any]:
    """Open loops, the lightest load first; then whether the same workers still answer."""
    values, rows, workers = shipped_values(), [], server.workers()
    batch = values["minWorkers"] * values["batchSize"]
    capacity = saturated(server.rest, images, batch, 2 if quick else 6)
    for share in (0.5, 1.5) if quick else LOADS:
        # Above the capacity it takes this long until the queue is full.
        filling = QUEUE / ((share - 1) * capacity) if share > 1 else 0.0
        seconds = 1.0 if quick else 20.0 + filling
        row = arriving(server.rest, images, share * capacity, seconds, seed=1)
        rows.append({"share": share, **row})
    one_client(server.rest, images, 1)
    survived = server.workers() == workers
    return {"capacity": round(capacity, 2), "workers_survived": survived, "loads": rows}


def main() -> None:
    """Measure; write the results, print the tables."""
    parser = options_parser(__doc__)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=served_precision(), help="what is served"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, few requests")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    options = parser.parse_args()
    precision, quick = options.precision, options.quick
    if quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give another folder with --out DIR")
    results: dict[str, Any] = {"precision": precision, "values": shipped_values()}
    os.environ.update(THREAD_ENVIRONMENT | os.environ)  # as a worker has it
    with tempfile.TemporaryDirectory(prefix="clipcap-serve-") as temporary:
        folder = Path(temporary)
        with OwnProcess(partial(write_captioner, folder, [precision], quick)):
            pass
        archive(folder / precision, folder / "clipcap.mar")
        images = draw_jpegs(SIZE, 4 if quick else 16)
        make = partial(ours, folder, precision)
        try:
            with serving(folder / "clipcap.mar") as (server, worker):
                with OwnProcess(make) as process:

                    def alone(batch: int) -> float:
                        return process.timed(partial(caption, make, batch, BEAMS))[0]

                    speed = measure_speed(server, alone, images, quick)
                results["speed"] = {"worker": worker, **speed}
                results["load"] = measure_load(server, images, quick)
        except (ServeError, CaptionError) as error:
            raise Refusal(str(error)) from error
    line = command_line("benchmarks.serve")
    print(serve_tables(write_results(options.out / "serve.json", line, results)))


if __name__ == "__main__":
    command(main)
