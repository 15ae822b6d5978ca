"""What it costs that an operator sees everything: metrics, traces of each request, logs in JSON.

`python -m benchmarks.telemetry` serves the captioner that comes with the repository twice, as `make
serve` does but on free ports, each with a gateway in front of it:

    off  plain log of the gateway, no line of the handler for a request, no traces, nobody scrapes
    on   JSON logs of both, every request traced (7 spans) and sent to a collector, and a Prometheus
         with the shipped rules that scrapes every 15 s

Then it sends the same requests from many connections to one and to the other, in rounds, so that
other load of the machine hits both. All of it shares the cores of one machine, the collector and
Prometheus too. It measures captions a second, and the CPU time of gateway, Java and worker for each
caption, which other programs of the machine disturb less.

It prints the table, writes `telemetry.json` into `benchmarks/results/KIND`, and puts the table into
`docs/monitoring.md`. It needs Debian's package `prometheus`.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.clients import burst_rate
from benchmarks.connections import flood, prediction
from benchmarks.gateway import CONNECTIONS, build_archive, cpu_seconds, fronted
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.pages import Row, table
from benchmarks.real_size import draw_jpegs
from benchmarks.serve import SIZE, serving, shipped_values
from deploy.errors import ServeError
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from model.refusal import Refusal
from training.command import command
from training.evaluation.report.marked_block import replaced_block

PAGE = ROOT / "docs" / "monitoring.md"
BEGIN, END = "<!-- cost: python -m benchmarks.telemetry -->", "<!-- /cost -->"
#: What each part of the servers is called.
PARTS = ("gateway", "java", "worker")
#: Seconds within which spans are sent (`OTEL_BSP_SCHEDULE_DELAY` is 5 s), and one more.
SEND_SECONDS = 6.0


def without_request_log(archive: Path, out: Path) -> Path:
    """A copy of an archive whose handler writes no line for a request."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == "model-config.yaml":
                config = yaml.safe_load(content)
                config["handler"]["request_log"] = False
                content = yaml.safe_dump(config).encode()
            copy.writestr(name, content)
    return out


def collect(listening: Any, received: Any) -> None:
    """Take messages with spans and do nothing with them, in a process of its own.

    Args:
        listening: Gets the port.
        received: Is raised by the bytes of each message.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.lower().split(b"\r\n")
                (length,) = [each[15:] for each in lines if each.startswith(b"content-length:")]
                await reader.readexactly(int(length))
                received.value += int(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        listening.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, Callable[[], int]]]:
    """Address of a collector of spans, and the bytes that it has got; ended at the end."""
    spawned = multiprocessing.get_context("spawn")
    listening, received = spawned.Queue(), spawned.Value("q", 0)
    process = spawned.Process(target=collect, args=(listening, received), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.get(timeout=60)}", lambda: int(received.value)
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def prometheus(folder: Path, gateway: str) -> Iterator[None]:
    """A Prometheus with the shipped files that scrapes a gateway."""
    if (program := shutil.which("prometheus")) is None:
        raise Refusal("prometheus is missing; install it: apt-get install prometheus")
    shipped = ROOT / "monitoring" / "prometheus"
    config = yaml.safe_load((shipped / "prometheus.yml").read_text())
    del config["alerting"]
    config["rule_files"] = [str(shipped / pattern) for pattern in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["authorization"]
    job["static_configs"][0]["targets"] = [gateway.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(program, f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
        if process.poll() is not None:
            raise Refusal(f"prometheus ended: {(folder / 'prometheus.log').read_text()[-300:]}")
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for what is started in the block."""
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


@contextlib.contextmanager
def both(
    folder: Path,
) -> Iterator[tuple[dict[str, tuple[str, dict[str, psutil.Process]]], Callable[[], int]]]:
    """`off` and `on` -> the address of the gateway and the processes by part; bytes of spans."""
    archive = build_archive(folder)
    plain = without_request_log(archive, folder / "plain.mar")
    found = {}
    with contextlib.ExitStack() as stack:
        server, _ = stack.enter_context(serving(plain))
        address, gateway = stack.enter_context(fronted(server))
        found["off"] = address, _processes(server, gateway)
        collecting, received = stack.enter_context(collector())
        with environment(OTEL_EXPORTER_OTLP_ENDPOINT=collecting, GATEWAY_JSON_LOG="true"):
            server, _ = stack.enter_context(serving(archive))
            address, gateway = stack.enter_context(fronted(server))
        found["on"] = address, _processes(server, gateway)
        stack.enter_context(prometheus(folder, address))
        yield found, received


def _processes(server: TorchServe, gateway: psutil.Process) -> dict[str, psutil.Process]:
    main = server.process()
    (worker,) = server.workers()
    assert main is not None
    return {"gateway": gateway, "java": main, "worker": psutil.Process(worker)}


def measure(folder: Path, requests: Sequence[bytes], rounds: int, bursts: int) -> dict[str, Any]:
    """Rounds of requests to one and to the other.

    Returns:
        `images_per_second` (medians), `rounds`, `kept` (median of the pairs, on / off), and
        `cpu_ms` of each part for a caption.
    """
    values = shipped_values()
    batch = values["minWorkers"] * values["batchSize"]
    count = (bursts + 3) * batch
    rates: dict[str, list[float]] = {"off": [], "on": []}
    spent = {name: dict.fromkeys(PARTS, 0.0) for name in rates}
    with both(folder) as (servers, received):
        for address, _ in servers.values():  # buffers are allocated once
            asyncio.run(flood(address, requests, CONNECTIONS, 4 * batch))
        before_all = received()
        for turn in range(rounds):
            for name in list(servers)[:: -1 if turn % 2 else 1]:
                address, processes = servers[name]
                before = {part: cpu_seconds(each) for part, each in processes.items()}
                answered = asyncio.run(flood(address, requests, CONNECTIONS, count))
                rates[name].append(burst_rate(answered, batch))
                for part, each in processes.items():
                    spent[name][part] += cpu_seconds(each) - before[part]
        time.sleep(SEND_SECONDS)
        traced = received() - before_all
    if not traced:
        raise Refusal("no span reached the collector; is OpenTelemetry installed (extra tracing)?")
    kept = [on / off for off, on in zip(rates["off"], rates["on"], strict=True)]
    total = rounds * count
    return {
        "values": values,
        "connections": CONNECTIONS,
        "captions": total,
        "images_per_second": {n: round(statistics.median(own), 2) for n, own in rates.items()},
        "rounds": {name: [round(rate, 2) for rate in own] for name, own in rates.items()},
        "kept": round(statistics.median(kept), 4),
        "cpu_ms": {
            name: {part: round(1e3 * own / total, 3) for part, own in parts.items()}
            for name, parts in spent.items()
        },
        "span_bytes": round(traced / total),
    }


def telemetry_table(results: Row) -> str:
    """What one run measured."""
    rows = []
    for name, parts in results["cpu_ms"].items():
        rate = results["images_per_second"][name]
        rows.append({"name": name, "rate": rate, **parts, "sum": sum(parts.values())})
    columns = {"telemetry": "{name}", "captions/s": "{rate:.1f}"}
    columns |= {f"{part} (ms)": f"{{{part}:.2f}}" for part in PARTS}
    off, on = rows
    return "\n\n".join(
        [
            f"Measured with `{results['command']}`, {results['date']}, {results['cores']} cores, "
            f"{results['processor']}: {results['captions']} captions each, in rounds of one and of "
            f"the other, from {results['connections']} connections.",
            table({**columns, "together (ms)": "{sum:.2f}"}, rows),
            "Milliseconds are CPU time of a core for each caption. With all of it on there are "
            f"{results['kept'] - 1:+.1%} captions a second (median of the pairs of rounds), and a "
            f"caption takes {on['sum'] / off['sum'] - 1:+.1%} CPU time. Its spans are "
            f"{results['span_bytes']:,} bytes.",
        ]
    )


def main() -> None:
    """Measure; write the results and the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="few requests; the page stays")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    options = parser.parse_args()
    if options.quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give another folder with --out DIR")
    os.environ.update(THREAD_ENVIRONMENT | os.environ)  # as a worker has it
    requests = [prediction(picture) for picture in draw_jpegs(SIZE, 8 if options.quick else 64)]
    rounds, bursts = (1, 1) if options.quick else (12, 10)
    with tempfile.TemporaryDirectory(prefix="clipcap-telemetry-") as temporary:
        try:
            results = measure(Path(temporary), requests, rounds, bursts)
        except ServeError as error:
            raise Refusal(str(error)) from error
    written = write_results(
        options.out / "telemetry.json", command_line("benchmarks.telemetry"), results
    )
    text = telemetry_table(written)
    print(text)
    if not options.quick:
        page = replaced_block(PAGE.read_text(), BEGIN, text, END)
        if page is None:
            raise Refusal(f"{PAGE} has not the marks {BEGIN} and {END}")
        PAGE.write_text(page)


if __name__ == "__main__":
    command(main)
