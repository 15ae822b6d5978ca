"""Tables and the picture of `benchmarks.serve`, all from its file of results.

`tables(results)` gives them one by one; `page` is `docs/serving-speed.md`, which
`benchmarks.tables` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.table import Table
from benchmarks.target import Target, compared


def tables(results: dict[str, Any]) -> Iterator[tuple[str, Table]]:
    """The tables of each part that was measured, with the part's name."""
    makers: dict[str, Callable[[Any, dict[str, int]], Iterator[Table]]] = {
        "speed": _speed,
        "load": _load,
        "grid": _grid,
        "delay": _delay,
        "memory": _memory,
    }
    for name, make in makers.items():
        if name in results:
            for table in make(results[name]["measured"], results[name]["shipped"]):
                yield name, table


def _speed(measured: dict[str, Any], shipped: dict[str, int]) -> Iterator[Table]:
    rates, alone = measured["images_per_second"], measured["alone_ms"]
    names = {
        "model": "the model alone, pixels to captions",
        "handler": "the handler without TorchServe, JPEG to JSON",
        "REST": "TorchServe over REST",
        "gRPC": "TorchServe over gRPC",
    }
    rows = tuple(
        (
            name,
            f"{rates[key]:.2f}",
            f"{measured['share'][key]:.0%}",
            f"{alone[key]:.0f} ms",
            f"{alone[key] - alone['handler']:+.0f} ms",
        )
        for key, name in names.items()
    )
    yield Table(
        f"TorchServe beside the model, batches of {measured['batch']}",
        ("what", "images/s", "of the handler", "one picture", "over the handler"),
        rows,
        "Images a second with batches always full (without TorchServe in as many processes as it "
        "has workers), the median of several rounds; their share of "
        "the handler's in the same round. One picture: the median of a client that asks "
        f"alone, of which up to {shipped['delay']} ms are `maxBatchDelay`.",
    )
    pictures = tuple(
        (
            size,
            f"{each['decode_ms']:.0f} ms",
            f"{each['handler_ms']:.0f} ms",
        )
        for size, each in measured["decode"].items()
    )
    columns = ("JPEG", "decoding alone", "a picture of a batch")
    note = (
        "A large JPEG is decoded at a fraction of its size, which leaves reading its codes: each "
        "stands behind the one before, so all are read whatever size is wanted, by one core. The "
        "pictures of a batch are decoded side by side."
    )
    yield Table("What decoding a picture takes", columns, pictures, note)
    mixed = measured["mixed_ms"]
    half, parts = measured["batch"] // 2, mixed["greedy"] + mixed["beams"]
    rows = (
        (f"{half} pictures, greedy", f"{mixed['greedy']:.0f} ms", ""),
        (f"{measured['batch'] - half} pictures, beams", f"{mixed['beams']:.0f} ms", ""),
        ("all of them", f"{mixed['together']:.0f} ms", f"{mixed['together'] / parts:.0%}"),
    )
    columns = ("one batch of", "takes", "of its parts")
    yield Table("A batch whose requests have different options", columns, rows)


def _load(measured: dict[str, Any], _: dict[str, int]) -> Iterator[Table]:
    rows = tuple(
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
    )
    columns = ("of capacity", "offered", "captioned", "p50", "p99", "requests", "503", "failed")
    survived = "the same" if measured["workers_survived"] else "NOT the same"
    note = (
        f"Requests come at random (Poisson); capacity is {measured['capacity']:.1f} images/s. "
        f"After the last, {survived} workers answered."
    )
    yield Table("Latency and throughput under load, over REST", columns, rows, note)


def _grid(measured: list[dict[str, Any]], shipped: dict[str, int]) -> Iterator[Table]:
    best = max(row["images_per_second"] for row in measured)
    rows = tuple(
        (
            f"{row['workers']} x {row['threads']}" + _mark(row, shipped),
            str(row["batch"]),
            f"{row['images_per_second']:.2f}",
            f"{row['images_per_second'] / best:.0%}",
            f"{row['workers'] * row['resident_mb']:.0f} MB",
            f"{row['ready_seconds']:.1f} s",
        )
        for row in measured
    )
    columns = ("workers x threads", "batchSize", "images/s", "of the best", "memory", "READY")
    yield Table("Workers, threads and batch size", columns, rows, "*: what is shipped.")


def _mark(row: dict[str, Any], shipped: dict[str, int]) -> str:
    return " *" if all(row[key] == shipped[key] for key in ("workers", "threads", "batch")) else ""


def _delay(measured: list[dict[str, Any]], shipped: dict[str, int]) -> Iterator[Table]:
    rows = tuple(
        (
            f"{row['delay_ms']} ms" + (" *" if row["delay_ms"] == shipped["delay"] else ""),
            f"{row['alone_p50_ms']:.0f} ms",
            f"{row['half_p50_ms']:.0f} ms",
            f"{row['half_p99_ms']:.0f} ms",
            f"{row['half_failed']}",
        )
        for row in measured
    )
    columns = (
        "maxBatchDelay",
        "one client",
        "p50 at half load",
        "p99 at half load",
        "not captioned",
    )
    yield Table("How long a request waits for others", columns, rows, "*: what is shipped.")


def _memory(measured: list[dict[str, Any]], _: dict[str, int]) -> Iterator[Table]:
    rows = tuple(
        (
            row["precision"],
            f"{row['weights_mb']:.0f} MB",
            f"{row['resident_mb']:.0f} MB",
            f"{row['resident_mb'] - row['weights_mb']:+.0f} MB",
            f"{row['peak_mb']:.0f} MB",
            f"{row['peak_mb'] / row['resident_mb']:.2f}",
            f"{row['serving_mb']:.0f} MB",
            f"{row['ready_seconds']:.1f} s",
            f"{row['images_per_second']:.2f}",
        )
        for row in measured
    )
    memory = ("worker", "over", "peak", "peak / worker", "serving")
    columns = ("precision", "weights", *memory, "READY after", "images/s")
    note = "worker and peak: at READY; serving: after full batches."
    yield Table("A worker's memory, and its start", columns, rows, note)


def draw(file: Path, results: dict[str, Any]) -> None:
    """Latency against offered load, with what was refused."""
    measured = results["load"]["measured"]
    loads = measured["loads"]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=130)
    axes = figure.subplots()
    offered = [100 * row["share"] for row in loads]
    axes.axvline(100, color="#bbbbbb", linewidth=1)
    for label, colour, name in (("p99", "#d98e4a", "p99_ms"), ("median", "#1f6f78", "p50_ms")):
        seconds = [row[name] / 1000 for row in loads]
        axes.plot(offered, seconds, color=colour, marker="o", markersize=4, label=label)
    for row in loads:
        if row["overloaded"]:
            text = f"{row['overloaded'] / row['sent']:.0%} answered 503"
            place = (100 * row["share"], row["p99_ms"] / 1000)
            axes.annotate(text, place, (-6, 8), textcoords="offset points", ha="right", fontsize=9)
    axes.set(yscale="log", xlabel=f"offered load, % of {measured['capacity']:.1f} images/s")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("Seconds from when a request was due to its caption", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.savefig(file, facecolor="white")


def _values(shipped: dict[str, int]) -> str:
    """The values of `model-config.yaml` that are shipped."""
    names = {"workers": "minWorkers", "threads": "threads", "batch": "batchSize"}
    names["delay"] = "maxBatchDelay"
    return ", ".join(f"`{name}: {shipped[key]}`" for key, name in names.items())


def targets(results: dict[str, Any]) -> list[Target]:
    """What serving shall cost at most, of the parts that were measured."""
    parts = {name: each["measured"] for name, each in results.items()}
    found = []
    if speed := parts.get("speed"):
        rates, alone, mixed = (speed[key] for key in ("images_per_second", "alone_ms", "mixed_ms"))
        found += [
            Target(f"{door}: images/s, of the model's alone", rates[door] / rates["model"], 0.95)
            for door in ("REST", "gRPC")
        ]
        allowed = 1.1 * alone["model"] + 10
        found += [
            Target(f"{door}, one client: of 1.1 x the model's time + 10 ms",
                   alone[door] / allowed, 1, True)
            for door in ("REST", "gRPC")
        ]  # fmt: skip
        parted = mixed["greedy"] + mixed["beams"]
        found.append(Target("mixed options: of their parts", mixed["together"] / parted, 1, True))
        usual, large = (each["handler_ms"] for each in speed["decode"].values())
        found.append(
            Target("12-megapixel JPEG: more of a picture's time", large / usual - 1, 0.05, True)
        )
    if load := parts.get("load"):
        failed = sum(row["failed"] for row in load["loads"])
        found.append(Target("failures from 25 to 150% of capacity", failed, 0, True))
    for row in parts.get("memory", ()):
        name = row["precision"]
        over = row["resident_mb"] - row["weights_mb"]
        found += [
            Target(f"{name}: MB over the weights, at READY", over, 350, True),
            Target(f"{name}: peak of loading / READY", row["peak_mb"] / row["resident_mb"],
                   1.3, True),
            Target(f"{name}: seconds to READY", row["ready_seconds"], 8, True),
        ]  # fmt: skip
    return found


def page(measured: Mapping[str, Any]) -> str:
    """All of `docs/serving-speed.md`, of kind of processor -> `serve.json`."""
    kept = compared({kind: targets(results) for kind, results in measured.items()})
    lines = [
        "# How fast it serves",
        "<!-- written by: python -m benchmarks.tables -->",
        "A captioner of real size (ViT-B/32, GPT-2 124M) with random weights, 5 beams, 20 tokens a "
        "caption, JPEGs of 640 x 480. "
        "Clients, server and model share one machine. `python -m benchmarks.serve` measures, and "
        "keeps the figures in `benchmarks/results`, a folder for each kind of processor.",
        "Two workers share the token embedding, which stays in the file of the unpacked "
        "archive (mapped; 154 MB in float32), and nothing else: linear layers are laid out "
        "anew for the processor, into memory of each worker's own. So the cores are shared "
        "out within one worker instead (`handler/lanes.py`).",
        f"## {kept.title}",
        kept.markdown(),
    ]
    for kind, results in measured.items():
        where = next(iter(results.values()))
        lines.append(f"## {kind}: {where['cores']} cores, {where['processor']}")
        for part, table in tables(results):
            own = results[part]
            how = f"`--only {part}`, {own['precision']}, {_values(own['shipped'])}, {own['date']}"
            lines += [f"### {table.title}", table.markdown(), how]
            if part == "load":
                lines.append(f"![Latency against load](../benchmarks/results/{kind}/serve.png)")
    return "\n\n".join(lines) + "\n"
