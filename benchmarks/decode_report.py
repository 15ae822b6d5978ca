"""What `benchmarks.decode` measured, told: ratios, targets, tables and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.table import Table
from benchmarks.target import Target
from model.layers.precision import PRECISIONS

COLOURS = {"ours": "#1f6f78", "Hugging": "#d98e4a", "BLIP-base": "#c9b890", "original": "#444444"}


def rates(results: dict[str, Any]) -> dict[tuple[str, str, int, int], float]:
    """(task, who, batch, beams) -> pictures or steps a second."""
    found = {}
    for entry in results["measured"]:
        key = (entry["task"], entry["who"], entry["batch"], entry["beams"])
        found[key] = (1 if entry["task"] == "step" else entry["batch"]) / entry["seconds"]
    return found


def targets(results: dict[str, Any]) -> list[Target]:
    """Those that this run measured both sides of, for each of the narrow precisions.

    Which of these a captioner is served in is decided by its gate
    (`training.evaluation.precision_gate`).
    """
    found = rates(results)
    original, theirs = ("caption", "original fp32", 1, 5), "Hugging Face"
    blips = [("caption", f"BLIP-base {each}", 4, 5) for each in ("bf16", "fp32")]
    blip = max(blips, key=lambda each: found.get(each, 0.0))
    asked = []
    for best in [f"ours {each}" for each in PRECISIONS if each != "fp32"]:
        ours8, ours1 = ("caption", best, 8, 5), ("caption", best, 1, 5)
        asked += [
            (f"{best}, batch 8: times the original's pictures/s", ours8, original, 60),
            (f"{best}, one picture: times as fast as the original", ours1, original, 25),
            (f"{best}, batch 8: times {theirs} fp32", ours8,
             ("caption", f"{theirs} fp32", 8, 5), 7),
            (f"{best}, batch 8: times {theirs} bf16", ours8,
             ("caption", f"{theirs} bf16", 8, 5), 2.5),
            (f"{best}, batch 8: times BLIP-base in its best precision, batch 4", ours8, blip, 15),
            (f"{best}, one step: times OpenVINO int8", ("step", best, 40, 0),
             ("step", "OpenVINO int8", 40, 0), 1.5),
        ]  # fmt: skip
    asked.append(
        (f"ours fp32, batch 8: times {theirs} fp32", ("caption", "ours fp32", 8, 5),
         ("caption", f"{theirs} fp32", 8, 5), 2.5)
    )  # fmt: skip
    asked += [
        (f"ours {each}, one step: share of the speed of its matrix products alone",
         ("step", f"ours {each}", 40, 0), ("step", f"products {each}", 40, 0), 0.7)
        for each in PRECISIONS
    ]  # fmt: skip
    kept = [
        Target(what, found[mine] / found[theirs], wanted)
        for what, mine, theirs, wanted in asked
        if mine in found and theirs in found
    ]
    kept += [
        Target(f"same tokens as Hugging Face fp32, {case} (1 is yes)", float(same), 1)
        for case, same in results["same_tokens"].items()
    ]
    kept += [
        Target(f"ours {precision}: nats per token off for the fp32 captions", off, 0.02, True)
        for precision, off in results["nats_off"].items()
    ]
    return kept


def caption_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Who, batch, search, milliseconds, pictures a second, and times the original."""
    found, rows = rates(results), []
    for (task, who, batch, beams), rate in found.items():
        if task == "caption":
            base = found.get(("caption", "original fp32", 1, beams))
            times = f"{rate / base:.1f}" if base else ""
            search = "greedy" if beams == 1 else f"{beams} beams"
            rows.append(
                (who, str(batch), search, f"{1e3 * batch / rate:.0f}", f"{rate:.2f}", times)
            )
    return rows


def encode_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Who, batch, milliseconds, pictures a second."""
    return [
        (who, str(batch), f"{1e3 * batch / rate:.0f}", f"{rate:.1f}")
        for (task, who, batch, _), rate in rates(results).items()
        if task == "encode"
    ]


def step_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Who, milliseconds a step, share of the time that is its matrix products alone."""
    found, rows = rates(results), []
    for (task, who, _, _), rate in found.items():
        if task == "step":
            limit = found.get(("step", who.replace("ours", "products"), 40, 0))
            share = f"{rate / limit:.0%}" if limit and who.startswith("ours") else ""
            rows.append((who, f"{1e3 / rate:.1f}", share))
    return rows


def tables(results: dict[str, Any]) -> list[Table]:
    """What was measured."""
    who = ("who", "batch")
    return [
        Table(
            "Pictures to captions of 20 tokens",
            (*who, "search", "ms", "pictures/s", "x original"),
            caption_rows(results),
        ),
        Table("The encoder alone", (*who, "ms", "pictures/s"), encode_rows(results)),
        Table(
            "One decode step: 40 rows behind 20 positions, choice of 10 tokens included",
            ("who", "ms", "of its products' speed"),
            step_rows(results),
        ),
    ]


def draw(file: Path, results: dict[str, Any]) -> None:
    """Pictures a second with 5 beams, one bar each, and milliseconds of one step."""
    found = rates(results)
    bars = [
        (f"{who}, batch {batch}", rate)
        for (task, who, batch, beams), rate in found.items()
        if task == "caption" and beams == 5
    ]
    steps = [(who, 1e3 / rate) for (task, who, _, _), rate in found.items() if task == "step"]
    figure = Figure(figsize=(11, 5), layout="constrained", dpi=120)
    titles = ("Pictures a second, 5 beams, 20 tokens", "One decode step of 40 rows, milliseconds")
    for axes, title, values in zip(figure.subplots(1, 2), titles, (bars, steps), strict=True):
        names = [name for name, _ in values]
        colours = [COLOURS.get(name.split()[0], "#a8a8a8") for name in names]
        drawn = axes.barh(range(len(values)), [value for _, value in values], color=colours)
        axes.bar_label(drawn, fmt="{:.3g}", padding=3, fontsize=8)
        axes.set_yticks(range(len(values)), names, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, facecolor="white")
