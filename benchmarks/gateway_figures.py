"""What `benchmarks.gateway` measured, as tables in Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.pages import Row, table


def gateway_tables(results: Row) -> str:
    """What one run of `benchmarks.gateway` measured."""
    alone, full, crowd = results["alone"], results["full"], results["crowd"]
    rows = [
        {"name": name, **alone[name], "rate": full["images_per_second"][name]}
        for name in ("TorchServe", "gateway")
    ]
    columns = {"asked": "{name}", "median": "{p50_ms:.1f} ms", "p95": "{p95_ms:.1f} ms"}
    columns["captions/s with full batches"] = "{rate:.1f}"
    beside = [
        {"name": "none", **crowd["alone"]},
        {"name": f"{crowd['idle']:,} idle, {crowd['slow']:,} slow", **crowd["crowded"]},
    ]
    memory = results["memory"]
    settings = ", ".join(f"`{name}: {value}`" for name, value in results["values"].items())
    return "\n\n".join(
        [
            f"Measured with `{results['command']}`, {settings}, {results['date']}: the captioner "
            "that comes with the repository, JPEGs of 640 x 480. Clients, gateway, TorchServe and "
            "model share the cores.",
            table(columns, rows),
            f"The latencies are those of one client at a time, which asked both in turn with "
            f"{alone['requests']} requests each; the gateway added {alone['added_ms']:.1f} ms (the "
            f"median of the pairs). Full batches: {full['connections']} connections, rounds of one "
            f"and of the other; through the gateway {full['lost']:.1%} of the captions a second "
            f"are lost. It takes {full['gateway_cpu_ms']:.1f} ms of one core for each request, "
            "which the model then does not have.",
            table(
                {"requests": "{requests:,}", "memory of the gateway": "{resident_mb:.1f} MB"},
                memory["steps"],
            ),
            f"Over the last eight tenths of them it grew by {memory['mb_per_10000_requests']:.2f} "
            "MB for each 10,000 requests.",
            table(
                {"other connections": "{name}", "median": "{p50_ms:.1f} ms",
                 "p95": "{p95_ms:.1f} ms"},
                beside,
            ),
            f"One client through the gateway, {crowd['requests']} requests each. A slow connection "
            "sends a byte of its request each second. The gateway closed "
            f"{crowd['closed_by_gateway']:,} of the others meanwhile.",
        ]
    )  # fmt: skip


def gateway_section(measured: Mapping[str, Row]) -> str:
    """The section of `docs/serving-speed.md` on the gateway.

    Args:
        measured: Kind of processor -> `gateway.json`.
    """
    parts = ["## What the gateway costs"]
    for kind, each in measured.items():
        parts += [f"### {kind}: {each['cores']} cores, {each['processor']}", gateway_tables(each)]
    return "\n\n".join(parts)


def draw(results: Row, file: Path) -> None:
    """Draw the latencies of one client, and the memory of the gateway.

    Args:
        results: What one run measured.
        file: The picture to write; its folder is made if there is none.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=110)
    latency, memory = figure.subplots(1, 2)
    for name, seconds in results["alone"]["seconds"].items():
        shares = np.arange(1, len(seconds) + 1) / len(seconds)
        latency.step(1e3 * np.sort(seconds), shares, label=name)
    latency.set(xlabel="latency of one client (ms)", ylabel="share of the requests")
    latency.legend()
    steps = results["memory"]["steps"]
    memory.plot(
        [each["requests"] for each in steps], [each["resident_mb"] for each in steps], marker="o"
    )
    memory.set(xlabel="requests", ylabel="memory of the gateway (MB)", ylim=(0, None))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, facecolor="white")
