"""What the gateway costs beside TorchServe alone.

`python -m benchmarks.gateway` serves the captioner that comes with the repository, as `make serve`
does but on free ports, and sends the same requests (`/predictions/clipcap`, JPEGs of 640 x 480) to
TorchServe and to the gateway in front of it. Clients, gateway, TorchServe and model share the cores
of one machine. It measures in this order:

    alone   latency of one client at a time, which asks both in turn
    full    rounds of requests from many connections to one and to the other: captions a second, and
            CPU time of the gateway for each
    memory  of the gateway, while it answers `--requests`
    crowd   latency of one client while other connections are idle or slow

It prints the tables, draws `reports/gateway.png` and writes `gateway.json` into
`benchmarks/results/KIND`. `python -m benchmarks.readme` then writes `docs/serving-speed.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.clients import burst_rate
from benchmarks.connections import crowd, flood, in_turn, prediction
from benchmarks.gateway_figures import draw, gateway_tables
from benchmarks.machine import (
    ROOT,
    command_line,
    options_parser,
    resident,
    results_folder,
    write_results,
)
from benchmarks.real_size import draw_jpegs
from benchmarks.serve import SIZE, serving, shipped_values
from deploy.captioner import SHIPPED
from deploy.errors import ServeError
from deploy.gateway import Gateway
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from model.refusal import Refusal
from training.command import command

#: Connections of the full load.
CONNECTIONS = 32
#: Shares of the requests at which memory is read.
STEPS = 10
#: Idle and slow connections of the crowd.
IDLE, SLOW = 1000, 200


@contextlib.contextmanager
def fronted(server: TorchServe) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a gateway in front of a server; stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["GATEWAY_PORT"] = str(probe.getsockname()[1])
    gateway = Gateway(server, server.folder / "gateway")
    check = gateway.check()
    process = gateway.start(check)
    try:
        yield check.address, process
    finally:
        gateway.stop()


def cpu_seconds(gateway: psutil.Process) -> float:
    """CPU time of the gateway until now."""
    times = gateway.cpu_times()
    return times.user + times.system


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile in milliseconds."""
    p50, p95 = (1e3 * float(np.percentile(seconds, percent)) for percent in (50, 95))
    return {"p50_ms": round(p50, 2), "p95_ms": round(p95, 2)}


def measure_alone(
    addresses: dict[str, str], requests: Sequence[bytes], count: int
) -> dict[str, Any]:
    """Latency of one client at a time, and what the gateway adds: the median of the pairs."""
    seconds = asyncio.run(in_turn(addresses, requests, count))
    added = [b - a for a, b in zip(seconds["TorchServe"], seconds["gateway"], strict=True)]
    return {
        "requests": count,
        **{name: summary(own) for name, own in seconds.items()},
        "added_ms": round(1e3 * statistics.median(added), 2),
        "seconds": {name: [round(each, 5) for each in own] for name, own in seconds.items()},
    }


def measure_full(
    addresses: dict[str, str],
    gateway: psutil.Process,
    requests: Sequence[bytes],
    rounds: int,
    bursts: int,
) -> dict[str, Any]:
    """Captions a second with full batches, in rounds of one server and of the other."""
    values = shipped_values()
    batch = values["minWorkers"] * values["batchSize"]
    rates: dict[str, list[float]] = {name: [] for name in addresses}
    cpu = 0.0
    count = (bursts + 3) * batch
    for turn in range(rounds):
        for name in list(addresses)[:: -1 if turn % 2 else 1]:
            before = cpu_seconds(gateway)
            answered = asyncio.run(flood(addresses[name], requests, CONNECTIONS, count))
            cpu += cpu_seconds(gateway) - before if name == "gateway" else 0.0
            rates[name].append(burst_rate(answered, batch))
    kept = [b / a for a, b in zip(rates["TorchServe"], rates["gateway"], strict=True)]
    return {
        "connections": CONNECTIONS,
        "images_per_second": {n: round(statistics.median(own), 2) for n, own in rates.items()},
        "rounds": {name: [round(rate, 2) for rate in own] for name, own in rates.items()},
        "lost": round(1 - statistics.median(kept), 4),
        "gateway_cpu_ms": round(1e3 * cpu / (rounds * count), 2),
    }


def measure_memory(
    address: str, gateway: psutil.Process, requests: Sequence[bytes], count: int
) -> dict[str, Any]:
    """Memory of the gateway while it answers requests.

    Returns:
        `steps`, each with the `requests` answered and `resident_mb`; and of all steps but the first
        two, in which buffers are allocated once, the slope `mb_per_10000_requests`.
    """
    steps = [{"requests": 0, "resident_mb": resident(gateway.pid)["now"]}]
    for step in range(1, STEPS + 1):
        upto = count * step // STEPS
        part = upto - int(steps[-1]["requests"])
        asyncio.run(flood(address, requests, CONNECTIONS // 2, part))
        steps.append({"requests": upto, "resident_mb": resident(gateway.pid)["now"]})
    settled = steps[2:]
    x, y = ([each[key] for each in settled] for key in ("requests", "resident_mb"))
    return {"steps": steps, "mb_per_10000_requests": round(1e4 * float(np.polyfit(x, y, 1)[0]), 3)}


def measure_crowd(
    address: str, requests: Sequence[bytes], count: int, idle: int, slow: int
) -> dict[str, Any]:
    """Latency of one client through the gateway, without and with a crowd of others."""
    target = {"gateway": address}

    async def beside() -> tuple[list[float], int]:
        async with crowd(address, idle, slow) as others:
            seconds = (await in_turn(target, requests, count))["gateway"]
            return seconds, sum(each.done() for each in others)

    alone = asyncio.run(in_turn(target, requests, count))["gateway"]
    crowded, closed = asyncio.run(beside())
    return {
        "idle": idle,
        "slow": slow,
        "requests": count,
        "alone": summary(alone),
        "crowded": summary(crowded),
        "closed_by_gateway": closed,
    }


def build_archive(folder: Path) -> Path:
    """Export and pack the captioner that comes with the repository, by the commands themselves."""
    artifact, packed = folder / "artifact", folder / "clipcap.mar"
    for words in (
        ["training.export", "--checkpoint", SHIPPED, "--out", artifact],
        ["training.archive", "--artifact", artifact, "--out", packed],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refusal(f"{words[0]} failed: {(done.stdout + done.stderr)[-300:].strip()}")
    return packed


def allow_connections(count: int) -> None:
    """Raise the limit on open files, of this process and those it starts.

    Raises:
        Refusal: The machine does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 200
    if soft < needed and hard != resource.RLIM_INFINITY and hard < needed:
        raise Refusal(f"the limit of open files is {hard}; {needed} are needed: ulimit -n {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def main() -> None:
    """Measure; write the results, print the tables, draw the plot."""
    parser = options_parser(__doc__)
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests over which memory is watched"
    )
    parser.add_argument("--quick", action="store_true", help="few requests")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "reports" / "gateway.png", help="the plot to draw"
    )
    options = parser.parse_args()
    quick = options.quick
    if quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give another folder with --out DIR")
    if options.requests < STEPS * 10:
        raise Refusal(f"--requests is {options.requests}; it must be {STEPS * 10} or more")
    idle, slow = (50, 10) if quick else (IDLE, SLOW)
    allow_connections(idle + slow)
    os.environ.update(THREAD_ENVIRONMENT | os.environ)  # as a worker has it
    requests = [prediction(picture) for picture in draw_jpegs(SIZE, 8 if quick else 64)]
    results: dict[str, Any] = {"values": shipped_values()}
    with tempfile.TemporaryDirectory(prefix="clipcap-gateway-") as temporary:
        try:
            with (
                serving(build_archive(Path(temporary))) as (server, _),
                fronted(server) as (address, gateway),
            ):
                addresses = {"TorchServe": server.rest, "gateway": address}
                results["alone"] = measure_alone(addresses, requests, 10 if quick else 300)
                rounds, bursts = (1, 1) if quick else (8, 20)
                results["full"] = measure_full(addresses, gateway, requests, rounds, bursts)
                results["memory"] = measure_memory(address, gateway, requests, options.requests)
                results["crowd"] = measure_crowd(
                    address, requests, 10 if quick else 200, idle, slow
                )
        except ServeError as error:
            raise Refusal(str(error)) from error
    line = command_line("benchmarks.gateway")
    written = write_results(options.out / "gateway.json", line, results)
    print(gateway_tables(written))
    draw(written, options.plot)


if __name__ == "__main__":
    command(main)
