"""What feedback costs captions: the same requests to gateways with and without a database.

`python -m benchmarks.feedback` serves the captioner that comes with the repository, as `make serve`
does but on free ports, with two gateways in front of it: one that takes no feedback, and one that
notes every answer in SQLite, or in the database of `--database`. They get the same requests
(`/predictions/clipcap`, JPEGs of 640 x 480) in turn:

    alone   latency of one client at a time, which asks both in turn
    full    rounds of requests from many connections to one and to the other: captions a second, and
            CPU time of the gateway for each

It prints the table, and with `--page docs/feedback.md` writes it there, between two marks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from benchmarks.clients import burst_rate
from benchmarks.connections import flood, in_turn, prediction
from benchmarks.figures import write_figures
from benchmarks.gateway import CONNECTIONS, build_archive, cpu_seconds, summary
from benchmarks.machine import command_line, options_parser, processor
from benchmarks.pages import table
from benchmarks.real_size import draw_jpegs
from benchmarks.serve import SIZE, serving, shipped_values
from deploy.errors import ServeError
from deploy.gateway import Gateway
from deploy.ports import on_free_ports
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from feedback.database import described, open_database, read_url, reading
from feedback.reading import counts
from model.refusal import Refusal
from training.command import command

OFF, ON = "none", "taken"


@contextlib.contextmanager
def fronted(server: TorchServe, name: str, database: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a gateway in front of a server; stopped at the end."""
    os.environ["GATEWAY_PORT"] = str(on_free_ports()["inference_address"].rpartition(":")[2])
    os.environ["GATEWAY_FEEDBACK"] = database
    gateway = Gateway(server, server.folder / f"gateway-{name}")
    process = gateway.start(check := gateway.check())
    try:
        yield check.address, process
    finally:
        gateway.stop()


def measure(
    gateways: Mapping[str, tuple[str, psutil.Process]],
    requests: Sequence[bytes],
    pairs: int,
    rounds: int,
) -> dict[str, Any]:
    """Latency, captions a second and CPU time of both, in turn.

    Args:
        gateways: Name -> address and process, of `OFF` and `ON`.
        requests: What is asked.
        pairs: Requests of one client to each.
        rounds: Of full batches, to each.
    """
    addresses = {name: address for name, (address, _) in gateways.items()}
    asyncio.run(in_turn(addresses, requests, 10))
    seconds = asyncio.run(in_turn(addresses, requests, pairs))
    added = [on - off for off, on in zip(seconds[OFF], seconds[ON], strict=True)]
    values = shipped_values()
    batch = values["minWorkers"] * values["batchSize"]
    count = 12 * batch
    rates: dict[str, list[float]] = {name: [] for name in gateways}
    cpu = dict.fromkeys(gateways, 0.0)
    for turn in range(rounds):
        for name in (OFF, ON) if turn % 2 else (ON, OFF):
            address, process = gateways[name]
            before = cpu_seconds(process)
            answered = asyncio.run(flood(address, requests, CONNECTIONS, count))
            cpu[name] += cpu_seconds(process) - before
            rates[name].append(burst_rate(answered, batch))
    ratios = [on / off for off, on in zip(rates[OFF], rates[ON], strict=True)]
    return {
        "rows": [
            {
                "name": name,
                **summary(seconds[name]),
                "rate": statistics.median(rates[name]),
                "cpu_ms": 1e3 * cpu[name] / (rounds * count),
            }
            for name in gateways
        ],
        "added_ms": 1e3 * statistics.median(added),
        "ratio": statistics.median(ratios),
        "noise": [min(ratios), max(ratios)],
    }


def report(results: Mapping[str, Any], database: str, line: str, pairs: int, rounds: int) -> str:
    """The table in Markdown, and what it says."""
    kind = read_url(database).get_backend_name()
    columns = {
        "feedback": "{name}",
        "median": "{p50_ms:.1f} ms",
        "p95": "{p95_ms:.1f} ms",
        "captions/s with full batches": "{rate:.1f}",
        "CPU of the gateway": "{cpu_ms:.2f} ms",
    }
    low, high = results["noise"]
    return "\n".join(
        [
            f"Measured with `{line}` ({kind}), {os.cpu_count()} cores of {processor()}, "
            f"{date.today().isoformat()}. Both gateways stood in front of the same TorchServe and "
            f"were asked in turn, {pairs} times by one client and in {rounds} rounds with full "
            "batches:",
            "",
            table(columns, results["rows"]),
            "",
            f"In pairs, an answer took {results['added_ms']:+.2f} ms longer (the median), and with "
            f"full batches there were {results['ratio']:.3f} times as many captions a second (the "
            f"median of rounds; single rounds {low:.2f} to {high:.2f}).",
        ]
    )


def main() -> None:
    """Measure; print the table, and write it into a page."""
    parser = options_parser(__doc__)
    parser.add_argument("--database", metavar="URL", help="of an empty database; default SQLite")
    parser.add_argument("--pairs", type=int, default=400, help="requests of one client to each")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of full batches to each")
    parser.add_argument("--page", type=Path, help="page of Markdown with the two marks")
    options = parser.parse_args()
    os.environ.update(THREAD_ENVIRONMENT | os.environ)  # as a worker has it
    requests = [prediction(picture) for picture in draw_jpegs(SIZE, 32)]
    with tempfile.TemporaryDirectory(prefix="clipcap-feedback-") as temporary:
        folder = Path(temporary)
        database = options.database or f"sqlite:///{folder / 'feedback.db'}"
        try:
            with (
                serving(build_archive(folder)) as (server, _),
                fronted(server, OFF, "") as off,
                fronted(server, ON, database) as on,
            ):
                results = measure({OFF: off, ON: on}, requests, options.pairs, options.rounds)
        except ServeError as error:
            raise Refusal(str(error)) from error
        with reading(open_database(database)) as connection:
            print(f"{described(read_url(database))}: {counts(connection).answers} answers noted")
    line = command_line("benchmarks.feedback")
    text = report(results, database, line, options.pairs, options.rounds)
    print(text)
    if options.page:
        write_figures(options.page, "benchmarks.feedback", text)


if __name__ == "__main__":
    command(main)
