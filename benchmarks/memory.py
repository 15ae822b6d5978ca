"""How much memory training takes as the captions become more: 10 thousand to a million.

`python -m benchmarks.memory` makes data sets of those sizes, five captions to a picture with
features of 512 numbers, and trains on each in a process of its own, which loads the captions,
learns a tokenizer from them, tokenises and trains some batches as `training.train` does. It prints
a table and writes `benchmarks/results/memory.json` and `memory.png`.

Two kinds of resident memory are told apart (Linux, /proc/PID/status): anonymous memory, which a
machine must have, and pages of files (features, tokens, libraries) that the kernel keeps as long as
nobody else wants the room. The peak of a stage is the highest of readings 5 ms apart.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, machine
from benchmarks.measured_training import STAGES, resident
from model.image.preprocessing import Preprocessing
from model.refusal import Refusal
from training.command import command
from training.data.dataset import Picture, write_index, writing_dataset
from training.encoding.feature_file import EncoderIdentity
from training.encoding.feature_shards import writing_features

SIZES = (10_000, 100_000, 1_000_000)
PER_PICTURE = 5
WIDTH = 512
ENCODER = EncoderIdentity("random", "0" * 64, (WIDTH,), Preprocessing(224, (0.5,) * 3, (0.5,) * 3))


def make_data(folder: Path, captions: int) -> int:
    """A data set without pictures, and its feature file, of random words and numbers.

    Returns:
        Bytes of the captions themselves, in UTF-8.
    """
    rng = random.Random(1)
    words = ["".join(rng.choices("aeioulnrst", k=rng.randint(1, 8))) for _ in range(2_000)]
    size = 0

    def pictures() -> Iterator[Picture]:
        nonlocal size
        for number in range(1, captions // PER_PICTURE + 1):
            texts = [" ".join(rng.choices(words, k=rng.randint(8, 14))) for _ in range(PER_PICTURE)]
            size += sum(map(len, texts))
            split = "val" if number % 100 == 0 else "train"
            yield Picture(number, f"{number:07d}.jpg", texts, split)

    with writing_dataset(folder / "data") as data:
        write_index(data, "random words", pictures())
    ids = range(1, captions // PER_PICTURE + 1)
    numbers = np.random.default_rng(1)
    with (
        writing_features(folder / "features", ENCODER, [{}]) as writer,
        writer.shard(0) as rows,
    ):
        for start in range(0, len(ids), 4096):
            part = ids[start : start + 4096]
            rows.add(part, numbers.standard_normal((len(part), WIDTH), np.float32))
    return size


def measure(folder: Path, batches: int) -> dict[str, dict[str, float]]:
    """Run `benchmarks.measured_training` in a process of its own.

    Returns:
        Stage -> `anonymous_mb` and `file_mb` at its end, the highest `anonymous_mb` in it as
        `peak_mb`, its `seconds`, and the `cpu_seconds` of the process until its end.

    Raises:
        Refusal: The process failed.
    """
    words = [sys.executable, "-m", "benchmarks.measured_training", str(folder)]
    words += ["--batches", str(batches)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            try:
                peak = max(peak, resident(process.pid)["anonymous_mb"])
            except (OSError, KeyError):  # it has ended
                return

    threading.Thread(target=watch, daemon=True).start()
    found: dict[str, dict[str, float]] = {}
    since = time.monotonic()
    assert process.stdout
    for line in process.stdout:
        if not line.startswith('{"stage"'):
            continue
        reading = json.loads(line)
        now = time.monotonic()
        reading["peak_mb"] = max(peak, reading["anonymous_mb"])
        reading["seconds"] = round(now - since, 1)
        found[reading.pop("stage")] = reading
        peak, since = 0.0, now
    ended.set()
    if process.wait() or list(found) != list(STAGES):
        raise Refusal(f"the measured process ended with status {process.returncode}")
    return found


def draw(file: Path, runs: list[dict[str, Any]]) -> None:
    """Memory above that of the same process with its libraries alone, against captions."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    axes = figure.subplots()
    counts = [run["captions"] for run in runs]
    for label, colour, style, values in (
        ("all, with pages of the feature file", "#c9b890", "-", [_all(run) for run in runs]),
        ("anonymous, at its peak", "#d98e4a", "-", [_peak(run) for run in runs]),
        ("anonymous, in training", "#1f6f78", "-", [_over(run, "anonymous_mb") for run in runs]),
        ("the captions' own bytes", "#444444", ":", [run["caption_mb"] for run in runs]),
    ):
        axes.plot(counts, values, style, color=colour, marker="o", markersize=4, label=label)
    axes.set(xscale="log", xlabel="captions", ylim=(0, None))
    axes.set_title("Resident memory in MB, above that of the libraries", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, facecolor="white")


def _over(run: dict[str, Any], name: str) -> float:
    """What training holds more than the process held before it loaded anything."""
    return run["stages"]["train"][name] - run["stages"]["start"][name]


def _all(run: dict[str, Any]) -> float:
    return _over(run, "anonymous_mb") + _over(run, "file_mb")


def _peak(run: dict[str, Any]) -> float:
    start = run["stages"]["start"]["anonymous_mb"]
    return max(run["stages"][stage]["peak_mb"] for stage in STAGES[1:]) - start


def write(folder: Path, batches: int, runs: list[dict[str, Any]]) -> None:
    """The runs so far, with where and when, and their picture."""
    results = {
        **machine("benchmarks.memory"),
        "feature_width": WIDTH,
        "batches": batches,
        "runs": runs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(folder / "memory.png", runs)


def table(runs: list[dict[str, Any]]) -> Table:
    """The runs for the terminal."""
    title = (
        "Resident MB: anonymous at the end of each stage; its peak; file pages and all in training"
    )
    shown = Table(title=title, title_justify="left")
    for name in ("captions", "rows", "own bytes", *STAGES, "peak", "file pages", "all", "tokenise"):
        shown.add_column(name, justify="right")
    for run in runs:
        stages = run["stages"]
        peak = max(stages[stage]["peak_mb"] for stage in STAGES)
        shown.add_row(
            *(f"{run['captions']:,}", f"{run['rows']:,}", f"{run['caption_mb']:.1f}"),
            *(f"{stages[stage]['anonymous_mb']:.0f}" for stage in STAGES),
            *(f"{peak:.0f}", f"{stages['train']['file_mb']:.0f}"),
            f"{stages['train']['anonymous_mb'] + stages['train']['file_mb']:.0f}",
            f"{stages['tokenise']['seconds']:.1f} s",
        )
    return shown


def main() -> None:
    """Measure every size; write table, JSON and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, nargs="+", default=SIZES, help="how many, each run")
    parser.add_argument("--batches", type=int, default=50, help="training batches of 128 captions")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if min(options.captions) < 100 * PER_PICTURE or options.batches < 1:
        raise Refusal(f"--captions must be {100 * PER_PICTURE} or more, --batches 1 or more")
    runs = []
    for captions in sorted(options.captions):
        with tempfile.TemporaryDirectory() as folder:
            size = make_data(Path(folder), captions)
            stages = measure(Path(folder), options.batches)
        rows = captions // PER_PICTURE
        own = round(size / 1e6, 1)
        runs.append({"captions": captions, "rows": rows, "caption_mb": own, "stages": stages})
        write(options.out, options.batches, runs)
    Console(width=140).print(table(runs))


if __name__ == "__main__":
    command(main)
