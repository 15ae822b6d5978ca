"""The figures of `docs/speed.md`: ratios and tables of `benchmarks.decode`.

`python -m benchmarks.readme` writes them into the page, from the results that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.table import Table
from model.layers.precision import PRECISIONS

#: Weights of GPT-2 124M that every step multiplies: 12 layers, and the output layer.
LAYER_WEIGHTS, OUTPUT_WEIGHTS = 12 * (4 + 8) * 768**2, 768 * 50257
#: Precision -> bytes of a weight in the layers and in the output layer.
WEIGHT_BYTES = {"fp32": (4, 4), "fp16": (2, 1), "bf16": (2, 1), "int8": (1, 1)}
#: A captioner's step: 8 images of 5 beams. Its captions: 8 images, 5 beams.
ROWS, BATCH, BEAMS = 40, 8, 5
#: Results by kind of processor, then by name of the file.
Results = Mapping[str, Mapping[str, Any]]


def rates(results: Mapping[str, Any]) -> dict[tuple[str, str, int, int], float]:
    """(task, system, batch, beams) -> images a second; of the products, times a second."""
    found = {}
    for each in results["measured"]:
        count = 1 if each["task"] == "products" else each["batch"]
        found[each["task"], each["who"], each["batch"], each["beams"]] = count / each["seconds"]
    return found


def limit(results: Mapping[str, Any], precision: str) -> float | None:
    """Images a second if only the encoder and the matrix products of the steps took time.

    The first of the tokens comes from reading the prefix, so there is one step less than tokens.
    """
    found = rates(results)
    step = found.get(("products", f"products {precision}", ROWS, 0))
    encoder = found.get(("encode", f"ours {precision}", BATCH, 0))
    if not step or not encoder:
        return None
    return BATCH / (BATCH / encoder + (results["tokens"] - 1) / step)


def ratios(measured: Results) -> Table:
    """Ours beside every other system and the limit, a column for each kind and precision."""
    columns = {
        f"{kind} {precision}": _beside(files["decode"], precision)
        for kind, files in measured.items()
        for precision in PRECISIONS
        if ("caption", f"ours {precision}", BATCH, BEAMS) in rates(files["decode"])
    }
    names = next(iter(columns.values()), {})
    rows = [(name, *(cells[name] for cells in columns.values())) for name in names]
    same = all(all(files["decode"]["same_tokens"].values()) for files in measured.values())
    note = (
        "Images a second of ours, divided by those of the other system, with 5 beams and 20 tokens "
        "a caption. The original captions one image at a time. BLIP-base is taken in its best "
        "precision and batch (1 or 4). ours fp32 writes "
        f"{'the same tokens as' if same else 'OTHER TOKENS THAN'} Hugging Face fp32. The last row: "
        "how far the mean log-probability of its captions is off, for the worst image."
    )
    return Table("Ratios", ("ours", *columns), rows, note)


def _beside(results: Mapping[str, Any], precision: str) -> dict[str, str]:
    """Row of the table of ratios -> cell; empty if the other system was not measured."""
    found, cells = rates(results), {}
    for batch, size in ((BATCH, "8 images"), (1, "1 image")):
        others = {
            "the original": [("original fp32", 1)],
            "Hugging Face fp32": [("Hugging Face fp32", batch)],
            "Hugging Face bf16": [("Hugging Face bf16", batch)],
            "BLIP-base": [
                (f"BLIP-base {n}", b)
                for n in ("fp32", "bf16")
                for b in ((1, 4) if batch > 1 else (1,))
            ],
        }
        ours = found["caption", f"ours {precision}", batch, BEAMS]
        for name, systems in others.items():
            keys = [("caption", *system, BEAMS) for system in systems]
            rivals = [found[key] for key in keys if key in found]
            cells[f"{size}, beside {name}"] = f"{ours / max(rivals):.1f}" if rivals else ""
    most, off = limit(results, precision), results["nats_off"].get(precision)
    ours = found["caption", f"ours {precision}", BATCH, BEAMS]
    cells["8 images, of the machine's limit"] = f"{ours / most:.0%}" if most else ""
    cells["nats a token off fp32"] = "" if off is None else f"{off:.2g}"
    return cells


def limit_text(results: Mapping[str, Any], precision: str) -> str:
    """The arithmetic of the limit for one kind of processor, as a paragraph."""
    found = rates(results)
    most = limit(results, precision)
    if most is None:
        return ""
    layer_bytes, output_bytes = WEIGHT_BYTES[precision]
    weights = LAYER_WEIGHTS * layer_bytes + OUTPUT_WEIGHTS * output_bytes
    products = 1 / found["products", f"products {precision}", ROWS, 0]
    encoder = BATCH / found["encode", f"ours {precision}", BATCH, 0]
    alone = 1 / found["caption", f"ours {precision}", 1, BEAMS]
    step = (alone - 1 / found["encode", f"ours {precision}", 1, 0]) / results["tokens"]
    steps = results["tokens"] - 1
    text = (
        f"The machine's limit in {precision}: a step multiplies the "
        f"{(LAYER_WEIGHTS + OUTPUT_WEIGHTS) / 1e6:.0f} million weights of GPT-2 124M "
        f"({weights / 1e6:.0f} MB) by {ROWS} rows. These products alone take {1e3 * products:.1f} "
        f"ms. {steps} steps and the encoder ({1e3 * encoder:.0f} ms) take {1e3 * BATCH / most:.0f} "
        f"ms for {BATCH} images, or {most:.1f} images/s"
    )
    if original := found.get(("caption", "original fp32", 1, BEAMS)):
        text += f": {most / original:.0f} times the original, if nothing else took any time"
    return (
        f"{text}. For one image a step has {BEAMS} rows and takes {1e3 * step:.1f} ms. It reads "
        f"the same weights, at {weights / step / 1e9:.0f} GB/s."
    )


def decode_tables(results: Mapping[str, Any]) -> list[Table]:
    """A table for each task that one run measured."""
    found = rates(results)
    captions, encoders, products = [], [], []
    for (task, who, batch, beams), rate in found.items():
        if task == "caption":
            base = found.get(("caption", "original fp32", 1, beams))
            search = "greedy" if beams == 1 else f"{beams} beams"
            times = f"{rate / base:.1f}" if base else ""
            row = (who, str(batch), search, f"{1e3 * batch / rate:.0f}", f"{rate:.2f}", times)
            captions.append(row)
        elif task == "encode":
            encoders.append((who, str(batch), f"{1e3 * batch / rate:.0f}", f"{rate:.1f}"))
        else:
            products.append((who.removeprefix("products "), f"{1e3 / rate:.1f}"))
    columns = ("system", "batch", "search", "ms", "images/s", "x original")
    tables = [
        Table(f"Images to captions of {results['tokens']} tokens", columns, captions),
        Table("The encoder alone", ("system", "batch", "ms", "images/s"), encoders),
        Table("The matrix products of a step of 40 rows", ("precision", "ms"), products),
    ]
    return [table for table in tables if table.rows]


def gate_table(gate: Mapping[str, Any]) -> Table:
    """How much of the default captioner's captions each precision keeps."""
    rows = [
        (
            name,
            f"{own['same']:.1%}",
            f"{own['cider_change']:+.2%}",
            "yes" if own["passes"] else "no",
        )
        for name, own in gate["precisions"].items()
    ]
    columns = ("default captioner in", "captions as in fp32", "CIDEr", "passes the gate")
    note = f"`python -m training.evaluate`, kept by `python -m benchmarks.readme`, {gate['date']}."
    return Table("What may be served", columns, rows, note)


def speed_figures(measured: Results) -> str:
    """What stands between the marks of `docs/speed.md`.

    Args:
        measured: Every kind with a `decode` file; its `gate` file is shown if there is one.
    """
    ratio = ratios(measured)
    parts = [f"## {ratio.title}", ratio.markdown()]
    for kind, files in measured.items():
        results = files["decode"]
        parts += [
            f"## {kind}: {results['processor']}",
            f"Measured with `{results['command']}`, {results['threads']} threads "
            f"({', '.join(results['instructions'])}), torch {results['torch']}, transformers "
            f"{results['transformers']}, {results['date']}. Medians; systems measured in turn.",
        ]
        passed = [
            n for n, own in files.get("gate", {}).get("precisions", {}).items() if own["passes"]
        ]
        parts += [text for text in [limit_text(results, (passed or ["fp32"])[-1])] if text]
        parts += [table.section() for table in decode_tables(results)]
        if "gate" in files:
            parts.append(gate_table(files["gate"]).section())
    return "\n\n".join(parts)
