"""Measured figures as tables in Markdown, and the figures of the pages on speed.

A table is made of rows, which are mappings, and of columns: a title, and the text of a cell with
the row's values in braces. `python -m benchmarks.readme` writes the pages from the kept results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.real_size import BEAMS
from model.layers.precision import PRECISIONS

#: The images that are captioned together for a comparison, and the rows that a step multiplies.
BATCH, ROWS = 8, 8 * BEAMS
#: Other system -> its names in `decode.json`.
OTHERS = {
    "the original": ("original fp32",),
    "Hugging Face fp32": ("Hugging Face fp32",),
    "Hugging Face bf16": ("Hugging Face bf16",),
    "BLIP-base": ("BLIP-base fp32", "BLIP-base bf16"),
}
Row = Mapping[str, Any]
#: Results by kind of processor, then by name of the file.
Results = Mapping[str, Mapping[str, Any]]


def table(columns: Mapping[str, str], rows: Iterable[Row], align: str = "---:") -> str:
    """A table in Markdown.

    Args:
        columns: Title -> cell, as in `{"images/s": "{rate:.1f}"}`.
        rows: A line each.
        align: Markdown's rule of all columns but the first.
    """
    lines = [[*columns], *([cell.format_map(row) for cell in columns.values()] for row in rows)]
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, f"|{'|'.join(['---', *[align] * (len(columns) - 1)])}|", *body])


def rates(results: Row) -> dict[tuple[str, str, int, int], float]:
    """(task, system, batch, beams) -> images a second; of the products, times a second."""
    found = {}
    for each in results["measured"]:
        count = 1 if each["task"] == "products" else each["batch"]
        found[each["task"], each["system"], each["batch"], each["beams"]] = count / each["seconds"]
    return found


def limits(results: Row) -> list[dict[str, Any]]:
    """Precision by precision: the images a second if only products and the encoder took time.

    The first of the tokens comes from reading the prefix, so there is one step less than tokens.
    """
    found, rows = rates(results), []
    for precision in PRECISIONS:
        step = found.get(("products", f"products {precision}", ROWS, 0))
        encoder = found.get(("encode", f"ours {precision}", BATCH, 0))
        if step and encoder:
            seconds = BATCH / encoder + (results["tokens"] - 1) / step
            most, ours = BATCH / seconds, found["caption", f"ours {precision}", BATCH, BEAMS]
            row = {"precision": precision, "step": 1e3 / step, "encoder": 1e3 * BATCH / encoder}
            rows.append({**row, "limit": most, "ours": ours, "share": ours / most})
    return rows


def decode_ratios(measured: Results) -> str:
    """Ours beside every other system and the limit, a column for each kind and precision."""
    sizes = {"8 images": BATCH, "1 image": 1}
    names = [f"{size}, beside {other}" for size in sizes for other in OTHERS]
    lines = {name: {"name": name} for name in [*names, "8 images, share of the machine's limit"]}
    columns = {"ours": "{name}"}
    for kind, files in measured.items():
        found = rates(files["decode"])
        shares = {row["precision"]: row["share"] for row in limits(files["decode"])}
        for precision in PRECISIONS:
            if ("caption", f"ours {precision}", BATCH, BEAMS) not in found:
                continue
            columns[f"{kind} {precision}"] = f"{{{kind} {precision}}}"
            ratios = []
            for batch in sizes.values():
                ours = found["caption", f"ours {precision}", batch, BEAMS]
                for systems in OTHERS.values():
                    rivals = [
                        rate
                        for (task, system, images, beams), rate in found.items()
                        if task == "caption" and system in systems
                        if images <= batch and beams == BEAMS
                    ]
                    ratios.append(ours / max(rivals) if rivals else None)
            ratios.append(shares.get(precision))
            for line, ratio in zip(lines.values(), ratios, strict=True):
                line[f"{kind} {precision}"] = "" if ratio is None else f"{ratio:.3g}"
    return table(columns, lines.values())


def decode_tables(results: Row) -> str:
    """What one run of `benchmarks.decode` measured."""
    found, captions = rates(results), []
    for (task, system, batch, beams), rate in found.items():
        if task == "caption":
            base = found.get(("caption", "original fp32", 1, beams))
            row = {"search": "greedy" if beams == 1 else f"{beams} beams", "rate": rate}
            row |= {"system": system, "batch": batch, "ms": 1e3 * batch / rate}
            captions.append({**row, "times": f"{rate / base:.1f}" if base else ""})
    columns = {"system": "{system}", "batch": "{batch}", "search": "{search}", "ms": "{ms:.0f}"}
    columns |= {"images/s": "{rate:.2f}", "x original": "{times}"}
    shown = [f"### Images to captions of {results['tokens']} tokens", table(columns, captions)]
    if rows := limits(results):
        columns = {
            "precision": "{precision}",
            "encoder": "{encoder:.0f} ms",
            "products of a step": "{step:.1f} ms",
            "limit": "{limit:.1f} images/s",
            "ours": "{ours:.1f} images/s",
            "reached": "{share:.0%}",
        }
        heading = f"### The machine's limit: {BATCH} images, {BEAMS} beams"
        shown += [heading, table(columns, rows)]
    return "\n\n".join(shown)


def gate_table(gate: Row) -> str:
    """How much of the default captioner's captions each precision keeps."""
    rows = [
        {"name": name, **own, "verdict": "yes" if own["passes"] else "no"}
        for name, own in gate["precisions"].items()
    ]
    columns = {"default captioner in": "{name}", "captions as in fp32": "{same:.1%}"}
    columns |= {"CIDEr": "{cider_change:+.2%}", "passes the gate": "{verdict}"}
    note = f"`python -m training.evaluate`, kept by `python -m benchmarks.readme`, {gate['date']}."
    return f"### What may be served\n\n{table(columns, rows)}\n\n{note}"


def speed_figures(measured: Results) -> str:
    """What stands between the marks of `docs/speed.md`.

    Args:
        measured: Every kind with a `decode` file; its `gate` file is shown if there is one.
    """
    same = all(all(files["decode"]["same_tokens"].values()) for files in measured.values())
    parts = [
        "## Ratios",
        decode_ratios(measured),
        f"Images a second of ours, divided by those of the other system, with {BEAMS} beams and 20 "
        "tokens a caption. The other system has its fastest batch of at most as many images (the "
        "original captions one at a time, BLIP-base 1 or 4), and BLIP-base its faster precision. "
        f"ours fp32 writes {'the same tokens as' if same else 'OTHER TOKENS THAN'} Hugging Face "
        "fp32.",
    ]
    for kind, files in measured.items():
        results = files["decode"]
        parts += [
            f"## {kind}: {results['processor']}",
            f"Measured with `{results['command']}`, {results['threads']} threads "
            f"({', '.join(results['instructions'])}), torch {results['torch']}, transformers "
            f"{results['transformers']}, {results['date']}. Medians; systems measured in turn.",
            decode_tables(results),
        ]
        if "gate" in files:
            parts.append(gate_table(files["gate"]))
    return "\n\n".join(parts)


def serve_tables(results: Row) -> str:
    """What one run of `benchmarks.serve` measured."""
    speed, load, values = results["speed"], results["load"], results["values"]
    names = {"model": "the captioner alone", "REST": "TorchServe, REST", "gRPC": "TorchServe, gRPC"}
    rows = [
        {"name": name, "rate": speed["images_per_second"][key], "ms": speed["alone_ms"][key]}
        for key, name in names.items()
    ]
    speed_columns = {"what": "{name}", "images/s": "{rate:.2f}", "one image": "{ms:.0f} ms"}
    worker_columns = {
        "weights": "{weights_mb:.0f} MB",
        "a worker's memory": "{resident_mb:.0f} MB",
        "highest while loading": "{peak_mb:.0f} MB",
        "READY after": "{ready_seconds:.1f} s",
    }
    load_columns = {
        "of capacity": "{share:.0%}",
        "offered": "{offered_per_second:.1f}/s",
        "captioned": "{images_per_second:.1f}/s",
        "p50": "{p50_ms:.0f} ms",
        "p99": "{p99_ms:.0f} ms",
        "requests": "{sent}",
        "503": "{overloaded}",
        "failed": "{failed}",
    }
    settings = ", ".join(f"`{name}: {value}`" for name, value in values.items())
    parts = [
        f"Measured with `python -m benchmarks.serve`, {results['precision']}, {settings}, "
        f"{results['date']}.",
        f"### TorchServe beside the captioner alone, batches of {values['batchSize']}",
        table(speed_columns, rows),
        "Images a second with full batches: the median of several rounds. One image: the median of "
        f"a client that is alone; up to {values['maxBatchDelay']} ms of it are `maxBatchDelay`.",
        table(worker_columns, [speed["worker"]]),
        "### Latency and throughput under load, over REST",
        table(load_columns, load["loads"]),
        "Requests come at random moments (Poisson). The capacity is "
        f"{load['capacity']:.1f} images/s. After the last load, "
        f"{'the same' if load['workers_survived'] else 'NOT the same'} workers answered.",
    ]
    return "\n\n".join(parts)


def serving_figures(measured: Results) -> str:
    """What stands between the marks of `docs/serving-speed.md`.

    Args:
        measured: Kind of processor -> `serve.json`.
    """
    rows, columns = [], {"served": "{name}"}
    columns |= {f"{kind} {own['precision']}": f"{{{kind}:.2f}}" for kind, own in measured.items()}
    for name in ("REST", "gRPC"):
        for key, what in (("images_per_second", "images/s"), ("alone_ms", "latency of one client")):
            found = {kind: each["speed"][key] for kind, each in measured.items()}
            ratios = {kind: own[name] / own["model"] for kind, own in found.items()}
            rows.append({"name": f"{name}: {what}, times the captioner's", **ratios})
    parts = [
        "## Ratios",
        table(columns, rows),
        "The captioner alone computes a batch of ready pixels on all threads together. A worker of "
        "TorchServe gives each of its threads a part of the batch, which can be faster. So a ratio "
        "of images/s can be over 1.",
    ]
    for kind, each in measured.items():
        parts += [f"## {kind}: {each['cores']} cores, {each['processor']}", serve_tables(each)]
    return "\n\n".join(parts)
