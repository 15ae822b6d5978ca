"""The tables of `benchmarks.serve`, and the figures of `docs/serving-speed.md`.

`python -m benchmarks.readme` writes the page, from the results that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.table import Table


def serve_tables(results: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """The tables of each part that was measured, with the part's name."""
    for name, make in {"speed": _speed, "load": _load}.items():
        if name in results:
            for table in make(results[name]["measured"], results[name]["values"]):
                yield name, table


def _speed(measured: Mapping[str, Any], values: Mapping[str, int]) -> Iterator[Table]:
    rates, alone = measured["images_per_second"], measured["alone_ms"]
    names = {
        "model": "the model alone, pixels to captions",
        "handler": "the handler without TorchServe, JPEG to JSON",
        "REST": "TorchServe over REST",
        "gRPC": "TorchServe over gRPC",
    }
    yield Table(
        f"TorchServe beside the model, batches of {measured['batch']}",
        ("what", "images/s", "of the handler", "one image", "over the handler"),
        [
            (
                name,
                f"{rates[key]:.2f}",
                f"{measured['share'][key]:.0%}",
                f"{alone[key]:.0f} ms",
                f"{alone[key] - alone['handler']:+.0f} ms",
            )
            for key, name in names.items()
        ],
        "Images a second with full batches (without TorchServe in as many processes as it has "
        "workers): the median of several rounds, and its share of the handler's in the same round. "
        "One image: the median of a client that is alone; "
        f"up to {values['maxBatchDelay']} ms of it are `maxBatchDelay`.",
    )
    mixed = measured["mixed_ms"]
    half, parts = measured["batch"] // 2, mixed["greedy"] + mixed["beams"]
    yield Table(
        "A batch whose requests have different options",
        ("one batch of", "takes", "of its parts"),
        [
            (f"{half} images, greedy", f"{mixed['greedy']:.0f} ms", ""),
            (f"{measured['batch'] - half} images, beams", f"{mixed['beams']:.0f} ms", ""),
            ("all of them", f"{mixed['together']:.0f} ms", f"{mixed['together'] / parts:.0%}"),
        ],
    )
    worker = measured["worker"]
    yield Table(
        "A worker's memory, and its start",
        ("weights", "worker", "over the weights", "highest while loading", "READY after"),
        [
            (
                f"{worker['weights_mb']:.0f} MB",
                f"{worker['resident_mb']:.0f} MB",
                f"{worker['resident_mb'] - worker['weights_mb']:+.0f} MB",
                f"{worker['peak_mb']:.0f} MB",
                f"{worker['ready_seconds']:.1f} s",
            )
        ],
    )


def _load(measured: Mapping[str, Any], _: Mapping[str, int]) -> Iterator[Table]:
    survived = "the same" if measured["workers_survived"] else "NOT the same"
    yield Table(
        "Latency and throughput under load, over REST",
        ("of capacity", "offered", "captioned", "p50", "p99", "requests", "503", "failed"),
        [
            (
                f"{row['share']:.0%}",
                f"{row['offered_per_second']:.1f}/s",
                f"{row['images_per_second']:.1f}/s",
                f"{row['p50_ms']:.0f} ms",
                f"{row['p99_ms']:.0f} ms",
                f"{row['sent']}",
                f"{row['overloaded']}",
                f"{row['failed']}",
            )
            for row in measured["loads"]
        ],
        "Requests come at random moments (Poisson); the capacity is "
        f"{measured['capacity']:.1f} images/s. After the last load, {survived} workers answered.",
    )


def ratios(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """Serving beside the model alone, a column for each kind of processor."""
    rows = []
    for name in ("REST", "gRPC"):
        shares, delays = [], []
        for results in measured.values():
            speed = results["speed"]["measured"]
            rate, alone = speed["images_per_second"], speed["alone_ms"]
            shares.append(f"{rate[name] / rate['model']:.0%}")
            delays.append(f"{alone[name] / alone['model']:.2f}")
        rows.append((f"{name}: images/s, of the model's alone", *shares))
        rows.append((f"{name}, one client: latency, times the model's", *delays))
    failed = [
        str(sum(row["failed"] for row in results["load"]["measured"]["loads"]))
        for results in measured.values()
    ]
    rows.append(("failures from 25% to 150% of capacity", *failed))
    precisions = [results["speed"]["precision"] for results in measured.values()]
    columns = [f"{kind} {name}" for kind, name in zip(measured, precisions, strict=True)]
    note = (
        "The model alone computes a batch of ready pixels on all threads together. The handler "
        "gives each thread a part of the batch, which can be faster: hence values over 100%."
    )
    return Table("Ratios", ("served", *columns), rows, note)


def serving_figures(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands between the marks of `docs/serving-speed.md`.

    Args:
        measured: Kind of processor -> `serve.json`, with all parts.
    """
    ratio = ratios(measured)
    lines = [f"## {ratio.title}", ratio.markdown()]
    for kind, results in measured.items():
        where = next(iter(results.values()))
        lines.append(f"## {kind}: {where['cores']} cores, {where['processor']}")
        for part, table in serve_tables(results):
            own = results[part]
            values = ", ".join(f"`{name}: {value}`" for name, value in own["values"].items())
            how = f"`--only {part}`, {own['precision']}, {values}, {own['date']}"
            lines += [table.section(), how]
    return "\n\n".join(lines)
