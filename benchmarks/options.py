"""What each option of a caption costs: 8 images at real size, with the option and without.

`python -m benchmarks.options` writes a captioner of real size with random weights
(`benchmarks.real_size`) and captions the same features with one option after the other, in rounds.
Every caption has exactly 20 tokens but for those that are cut. It prints a table, and writes
`options.json` into `benchmarks/results/KIND`; `python -m benchmarks.readme` shows it in
`docs/speed.md`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.captioners import write_captioner
from benchmarks.machine import command_line, options_parser, results_folder, write_results
from benchmarks.pages import table
from benchmarks.real_size import TOKENS
from model.artifact import Artifact
from model.layers.precision import available
from training.command import command

BATCH = 8
#: Options that search takes with any number of beams.
SEARCHED: dict[str, dict[str, Any]] = {
    "none": {},
    "repetition_penalty=1.2": {"repetition_penalty": 1.2},
    "no_repeat_ngram_size=3": {"no_repeat_ngram_size": 3},
    "max_characters=1000": {"max_characters": 1000},
    "max_characters=40": {"max_characters": 40},
    "prompt of 4 letters": {"prompt": "zqxj"},
}
#: Those of a draw.
DRAWN: dict[str, dict[str, Any]] = {
    "temperature=0.8": {"temperature": 0.8},
    "temperature=0.8, top_k=50": {"temperature": 0.8, "top_k": 50},
    "temperature=0.8, top_p=0.9": {"temperature": 0.8, "top_p": 0.9},
    "temperature=0.8, num_captions=3": {"temperature": 0.8, "num_captions": 3},
}
CASES: dict[tuple[str, str], dict[str, Any]] = {
    **{("greedy", name): {**given, "num_beams": 1} for name, given in SEARCHED.items()},
    **{("5 beams", name): {**given, "num_beams": 5} for name, given in SEARCHED.items()},
    **{("draw", name): given for name, given in DRAWN.items()},
}


def measure(artifact: Artifact, rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of a batch with each option, measured in turns."""
    side = artifact.preprocessing.size
    pixels = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(1))
    features = artifact.encode(pixels)
    fixed = {"max_tokens": TOKENS, "min_tokens": TOKENS}
    options = {key: artifact.defaults.updated({**fixed, **given}) for key, given in CASES.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in CASES}
    for turn in range(rounds + 1):  # the first one warms up
        for key, each in options.items():
            begin = time.perf_counter()
            artifact.caption(features, each)
            if turn:
                seconds[key].append(time.perf_counter() - begin)
    return {key: 1000 * statistics.median(each) for key, each in seconds.items()}


def options_section(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands in the page on speed.

    Args:
        measured: Kind of processor -> `options.json`.
    """
    lines = ["## What options cost", ""]
    for results in measured.values():
        rows = results["options"]
        columns = {
            "search": "{search}",
            "option": "{option}",
            "ms": "{ms:.0f}",
            "of the time without": "{ratio:.2f}",
        }
        lines += [
            f"{BATCH} images, {TOKENS} tokens, {results['precision']}, from features to captions "
            f"(`{results['command']}`, {results['cores']} cores, {results['processor']}, "
            f"{results['date']}). A draw is compared with greedy search.",
            "",
            table(columns, rows),
            "",
        ]
    return "\n".join(lines).rstrip()


def run() -> None:
    """Measure, print a table and write the results."""
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=available(), default=available()[-1])
    parser.add_argument("--tiny", action="store_true", help="a tiny captioner, to try the command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_captioner(Path(folder), [options.precision], options.tiny)
        found = measure(Artifact.load(Path(folder) / options.precision), options.rounds)
    rows = [
        {
            "search": search,
            "option": option,
            "ms": round(ms, 2),
            "ratio": round(ms / found["greedy" if search == "draw" else search, "none"], 3),
        }
        for (search, option), ms in found.items()
    ]
    console = Console()
    for row in rows:
        console.print(
            f"{row['search']:8} {row['option']:34} {row['ms']:9.1f} ms {row['ratio']:6.2f}"
        )
    if not options.tiny:
        results = {"precision": options.precision, "options": rows}
        write_results(
            results_folder() / "options.json", command_line("benchmarks.options"), results
        )


if __name__ == "__main__":
    command(run)
