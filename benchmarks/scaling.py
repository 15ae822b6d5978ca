"""The artifact's time against all that it grows with, for `benchmarks.decode --scaling`.

Nowhere may there be a cliff: one size more must not cost much more than its share.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from benchmarks.contestants import artifact_of, ours
from benchmarks.pictures import draw_pictures
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.layers.precision import available

#: What is varied, its sizes, and (batch, beams, tokens) otherwise.
SWEEPS: dict[str, tuple[tuple[int, ...], tuple[int, int, int]]] = {
    "batch": ((1, 2, 4, 8, 16, 32), (0, 5, 20)),
    "beams": ((1, 2, 3, 4, 5, 6, 7, 8), (4, 0, 20)),
    "tokens": ((5, 10, 20, 40, 60), (4, 5, 0)),
    "threads": ((1, 2), (8, 5, 20)),
    "megapixels": ((1, 3, 12, 48), (1, 5, 20)),
}
#: A size may cost so much more than its share of the one before.
CLIFF = 1.3
COLOURS = {"fp32": "#444444", "fp16": "#8a6fb0", "bf16": "#d98e4a", "int8": "#1f6f78"}


@torch.inference_mode()
def scaling(folder: Path, rounds: int, quick: bool) -> dict[str, Any]:
    """Sweep -> precision -> seconds of each size, and the cliffs found."""
    everyone = {precision: ours(folder, precision) for precision in available()}
    side = next(iter(everyone.values())).side
    pixels = torch.randn(32, 3, side, side)
    preprocessing = artifact_of(folder, next(iter(everyone))).preprocessing
    threads = torch.get_num_threads()
    found: dict[str, Any] = {}
    for sweep, (sizes, usual) in SWEEPS.items():
        sizes = sizes[:2] if quick else sizes
        files = jpegs(sizes) if sweep == "megapixels" else {}
        seconds: dict[str, dict[int, list[float]]] = {
            name: {size: [] for size in sizes} for name in everyone
        }
        for number in track(range(rounds + 1), sweep, console=Console(stderr=True)):
            for size in sizes:
                batch, beams, tokens = (size if each == 0 else each for each in usual)
                torch.set_num_threads(size if sweep == "threads" else threads)
                for name, one in everyone.items():
                    since = time.perf_counter()
                    given = pixels[:batch]
                    if size in files:
                        given = to_pixels(load_image(files[size], side=side), preprocessing)[None]
                    one(given, beams, tokens)
                    if number:
                        seconds[name][size].append(time.perf_counter() - since)
        torch.set_num_threads(threads)
        found[sweep] = {
            "sizes": sizes,
            **{
                name: [statistics.median(values) for values in each.values()]
                for name, each in seconds.items()
            },
        }
    return {"sweeps": found, "cliffs": cliffs(found)}


def jpegs(sizes: tuple[int, ...]) -> dict[int, bytes]:
    """Megapixels -> a JPEG file of so many, three wide and two high."""
    with tempfile.TemporaryDirectory() as temporary:
        widths = {size: round((size * 1e6 * 1.5) ** 0.5) for size in sizes}
        return {
            size: draw_pictures(Path(temporary), (width, width * 2 // 3), 1)[0].read_bytes()
            for size, width in widths.items()
        }


def usual_of(sweep: str) -> str:
    """What does not vary in a sweep, in words."""
    names = ("picture", "beam", "token")
    usual = zip(SWEEPS[sweep][1], names, strict=True)
    return ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in usual if n)


def cliffs(sweeps: dict[str, Any]) -> list[str]:
    """A line for each size that costs much more than its share of the one before."""
    lines = []
    for sweep, values in sweeps.items():
        sizes = values["sizes"]
        for name in values.keys() - {"sizes"}:
            for i in range(1, len(sizes)):
                more = 1.0 if sweep == "threads" else sizes[i] / sizes[i - 1]
                cost = values[name][i] / values[name][i - 1]
                if cost > CLIFF * more:
                    lines.append(
                        f"{name}, {sweep} {sizes[i - 1]} to {sizes[i]}: {cost:.2f} times the time"
                    )
    return sorted(lines)


def draw_scaling(file: Path, results: dict[str, Any]) -> None:
    """A panel for each sweep."""
    figure = Figure(figsize=(11, 3.2), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(results["sweeps"]))
    for axes, (sweep, values) in zip(panels, results["sweeps"].items(), strict=True):
        for name in sorted(values.keys() - {"sizes"}):
            colour = COLOURS[name]
            axes.plot(values["sizes"], values[name], "o-", color=colour, label=name, markersize=4)
        axes.set(xlabel=sweep, ylim=(0, None), xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_title("Seconds", loc="left", fontsize=10)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, facecolor="white")
