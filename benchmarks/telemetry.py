"""What it costs that an operator sees everything: metrics, traces of each request, logs in JSON.

`python -m benchmarks.telemetry` serves the captioner that comes with the repository three times, as
`make serve` does but on free ports, each with a gateway in front of it:

    off          plain log of the gateway, no line of the handler for a request, no traces, nobody
                 scrapes
    on           JSON logs of both, one request in ten traced (7 spans) and sent to a collector,
                 and a Prometheus with the shipped rules that scrapes every 15 s
    every trace  the same with every request traced

Then it sends the same requests from many connections to one after the other, in rounds, so that
other load of the machine hits all. All of it shares the cores of one machine, the collector and
Prometheus too. It measures captions a second, and the CPU time of gateway, Java and worker for each
caption, which other programs of the machine disturb less.

It prints the table, writes `telemetry.json` into `benchmarks/results/KIND`, and puts the table into
`docs/monitoring.md`. It needs Debian's package `prometheus`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.clients import burst_rate
from benchmarks.connections import flood, prediction
from benchmarks.figures import write_figures
from benchmarks.gateway import CONNECTIONS, build_archive, cpu_seconds, fronted
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.pages import Row, table
from benchmarks.real_size import draw_jpegs
from benchmarks.serve import SIZE, serving, shipped_values
from deploy.errors import ServeError
from deploy.torchserve import THREAD_ENVIRONMENT, TorchServe
from model.refusal import Refusal
from training.command import command

PAGE = ROOT / "docs" / "monitoring.md"
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


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, Callable[[], int]]]:
    """Address of a collector of spans, and the bytes that it has got; ended at the end."""
    words = [sys.executable, "-m", "benchmarks.span_collector"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        try:
            yield address, lambda: int(httpx.get(address).text)
        finally:
            process.terminate()


@contextlib.contextmanager
def prometheus(folder: Path, gateways: Sequence[str]) -> Iterator[None]:
    """A Prometheus with the shipped files that scrapes gateways."""
    if (program := shutil.which("prometheus")) is None:
        raise Refusal("prometheus is missing; install it: apt-get install prometheus")
    shipped = ROOT / "monitoring" / "prometheus"
    config = yaml.safe_load((shipped / "prometheus.yml").read_text())
    del config["alerting"]
    config["rule_files"] = [str(shipped / pattern) for pattern in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["authorization"]
    job["static_configs"][0]["targets"] = [each.removeprefix("http://") for each in gateways]
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
def all_of_them(
    folder: Path,
) -> Iterator[tuple[dict[str, tuple[str, dict[str, psutil.Process]]], Callable[[], int]]]:
    """Name of each -> address of its gateway, and processes by part; bytes of spans so far."""
    archive = build_archive(folder)
    plain = without_request_log(archive, folder / "plain.mar")
    found = {}
    with contextlib.ExitStack() as stack:
        server, _ = stack.enter_context(serving(plain))
        address, gateway = stack.enter_context(fronted(server))
        found["off"] = address, _processes(server, gateway)
        collecting, received = stack.enter_context(collector())
        shared = {"OTEL_EXPORTER_OTLP_ENDPOINT": collecting, "GATEWAY_JSON_LOG": "true"}
        for name, more in (
            ("on", {}),
            ("every trace", {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}),
        ):
            with environment(**shared, **more):
                server, _ = stack.enter_context(serving(archive))
                address, gateway = stack.enter_context(fronted(server))
            found[name] = address, _processes(server, gateway)
        stack.enter_context(prometheus(folder, [found["on"][0], found["every trace"][0]]))
        yield found, received


def _processes(server: TorchServe, gateway: psutil.Process) -> dict[str, psutil.Process]:
    main = server.process()
    (worker,) = server.workers()
    assert main is not None
    return {"gateway": gateway, "java": main, "worker": psutil.Process(worker)}


def measure(folder: Path, requests: Sequence[bytes], rounds: int, bursts: int) -> dict[str, Any]:
    """Rounds of requests to each.

    Returns:
        `images_per_second` (medians), `rounds`, `kept` (median of the pairs of rounds, divided by
        that of `off`), and `cpu_ms` of each part for a caption.
    """
    values = shipped_values()
    batch = values["minWorkers"] * values["batchSize"]
    count = (bursts + 3) * batch
    with all_of_them(folder) as (servers, received):
        rates: dict[str, list[float]] = {name: [] for name in servers}
        spent = {name: dict.fromkeys(PARTS, 0.0) for name in servers}
        for address, _ in servers.values():  # buffers are allocated once
            asyncio.run(flood(address, requests, CONNECTIONS, 4 * batch))
        before_all = received()
        for turn in range(rounds):
            for name in [*servers][:: -1 if turn % 2 else 1]:
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
    pairs = {
        name: [each / off for off, each in zip(rates["off"], own, strict=True)]
        for name, own in rates.items()
    }
    total = rounds * count
    return {
        "values": values,
        "connections": CONNECTIONS,
        "captions": total,
        "images_per_second": {n: round(statistics.median(own), 2) for n, own in rates.items()},
        "rounds": {name: [round(rate, 2) for rate in own] for name, own in rates.items()},
        "kept": {name: round(statistics.median(own), 4) for name, own in pairs.items()},
        "cpu_ms": {
            name: {part: round(1e3 * own / total, 3) for part, own in parts.items()}
            for name, parts in spent.items()
        },
        "span_bytes": traced,
    }


def telemetry_table(results: Row) -> str:
    """What one run measured."""
    rows = []
    without = sum(results["cpu_ms"]["off"].values())
    for name, parts in results["cpu_ms"].items():
        together = sum(parts.values())
        rows.append(
            {
                "name": name,
                **{"rate": results["images_per_second"][name], "kept": results["kept"][name] - 1},
                **{**parts, "sum": together, "more": together / without - 1},
            }
        )
    columns = {"telemetry": "{name}", "captions/s": "{rate:.1f}", "pairs": "{kept:+.1%}"}
    columns |= {f"{part} (ms)": f"{{{part}:.2f}}" for part in PARTS}
    columns |= {"together (ms)": "{sum:.2f}", "more": "{more:+.1%}"}
    return "\n\n".join(
        [
            f"Measured with `{results['command']}`, {results['date']}, {results['cores']} cores, "
            f"{results['processor']}: {results['captions']} captions each, in rounds of one after "
            f"the other, from {results['connections']} connections.",
            table(columns, rows),
            "*Pairs* is the median of the rounds' captions a second, each divided by that of `off` "
            "in the same round. Milliseconds are CPU time of a core for each caption, which other "
            "programs of the machine disturb less.",
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
    rounds, bursts = (1, 1) if options.quick else (8, 10)
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
        write_figures(PAGE, "benchmarks.telemetry", text)


if __name__ == "__main__":
    command(main)
