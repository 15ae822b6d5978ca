"""Programs of `torch.export` beside the TorchScript file: the same captioner, the same search.

`python -m benchmarks.programs` writes a captioner of real size with random weights
(`benchmarks.real_size`) and exports it in both formats. Each is loaded in a process of its own, and
both write captions of exactly 20 tokens in turns, from pixels. Their tokens must be equal. It
prints a table, and writes `programs.json` into `benchmarks/results/KIND`; `python -m
benchmarks.readme` shows it in `docs/speed.md`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.captioners import caption, ours
from benchmarks.decode import Calls, Key, in_turn, processes
from benchmarks.machine import (
    OwnProcess,
    command_line,
    options_parser,
    resident,
    results_folder,
    write_results,
)
from benchmarks.pages import table
from benchmarks.real_size import BEAMS, TOKENS, random_checkpoint
from model.export import export_torchscript
from model.layers.precision import available
from model.programs.export import PRECISIONS, export_programs
from model.refusal import Refusal
from training.command import command

#: What is timed: images and beams.
CASES = ((1, 1), (8, BEAMS))
WRITERS = {"TorchScript": export_torchscript, "programs": export_programs}


def write_captioners(folder: Path, precisions: list[str], tiny: bool) -> None:
    """Write a checkpoint, and an artifact of each format and precision: `FORMAT PRECISION`."""
    random_checkpoint(tiny).save(folder / "checkpoint")
    for precision in precisions:
        for name, write in WRITERS.items():
            write(folder / "checkpoint", folder / f"{name} {precision}", None, precision)


def measure(folder: Path, precisions: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each format and precision.

    Args:
        folder: What `write_captioners` left.
        precisions: Those that were exported.
        rounds: How often each call is counted.

    Raises:
        Refusal: The formats write other tokens.
    """
    made = {
        f"{name} {precision}": partial(ours, folder, f"{name} {precision}")
        for precision in precisions
        for name in WRITERS
    }
    loads: dict[str, list[float]] = {name: [] for name in made}
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for name, make in made.items():
            with OwnProcess(int) as own:  # with torch imported, and nothing loaded
                loads[name].append(own.timed(partial(_loaded, make))[0])
    with processes(made) as homes:
        calls: Calls = {
            ("caption", name, batch, beams): partial(
                home.timed, partial(caption, made[name], batch, beams)
            )
            for batch, beams in CASES
            for name, home in homes.items()
        }
        seconds, written = in_turn(calls, rounds)
        for name, home in homes.items():
            memory[name] = home.timed(_resident)[1]
    check_same(written, precisions)
    return [
        {
            "name": name,
            "load_seconds": round(statistics.median(loads[name]), 2),
            "megabytes": round(_bytes(folder / name) / 1e6, 1),
            "memory_mb": memory[name],
            "ms": [
                round(1000 * statistics.median(seconds["caption", name, *case]), 1)
                for case in CASES
            ],
        }
        for name in made
    ]


def check_same(written: Mapping[Key, Any], precisions: Sequence[str]) -> None:
    """Refuse formats that do not write the same tokens.

    Args:
        written: The last result of each call, as `in_turn` gives them.
        precisions: Those that were exported.

    Raises:
        Refusal: See above.
    """
    for precision in precisions:
        first, *others = (
            [written["caption", f"{name} {precision}", *case] for case in CASES] for name in WRITERS
        )
        if any(other != first for other in others):
            raise Refusal(f"in {precision} the formats write other tokens; run the tests")


def _loaded(make: Any) -> None:
    """Load a system; it stays in its process."""
    make()


def _resident() -> float:
    """Resident memory of this process in MB."""
    return resident(os.getpid())["now"]


def _bytes(folder: Path) -> int:
    """Size of an artifact without its description and its tokenizer."""
    files = [each for each in folder.rglob("*") if each.suffix in (".pt", ".pt2")]
    return sum(each.stat().st_size for each in files)


def rows_of(results: Mapping[str, Any]) -> str:
    """The table of a run."""
    rows = []
    for row in results["formats"]:
        precision = row["name"].split()[1]
        base = next(e for e in results["formats"] if e["name"] == f"TorchScript {precision}")
        ratios = [own / theirs for own, theirs in zip(row["ms"], base["ms"], strict=True)]
        rows.append({**row, "ratios": ratios})
    columns = {
        "format": "{name}",
        "1 image, greedy": "{ms[0]:.0f} ms",
        "of TorchScript's": "{ratios[0]:.2f}",
        f"8 images, {BEAMS} beams": "{ms[1]:.0f} ms",
        "of TorchScript's time": "{ratios[1]:.2f}",
        "loading": "{load_seconds:.1f} s",
        "files": "{megabytes:.0f} MB",
        "memory": "{memory_mb:.0f} MB",
    }
    return table(columns, rows)


def programs_section(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands in the page on speed.

    Args:
        measured: Kind of processor -> `programs.json`.
    """
    lines = ["## Programs beside TorchScript", ""]
    for results in measured.values():
        lines += [
            "The same captioner exported with `export.format=programs`: programs of `torch.export`,"
            " whose layers are packed when they are loaded, and the search in Python. From pixels "
            f"to captions of {TOKENS} tokens, which are equal in both formats "
            f"(`{results['command']}`, {results['cores']} cores, {results['threads']} threads, "
            f"{results['processor']}, {results['date']}). Medians; measured in turn.",
            "",
            rows_of(results),
            "",
        ]
    return "\n".join(lines).rstrip()


def run() -> None:
    """Measure, print the table and write the results."""
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each call is counted")
    parser.add_argument("--tiny", action="store_true", help="a tiny captioner, to try the command")
    options = parser.parse_args()
    if options.rounds < 1:
        raise Refusal(f"--rounds is {options.rounds}; it must be 1 or more")
    warnings.simplefilter("ignore")  # torch.jit is deprecated
    precisions = [name for name in PRECISIONS if name in available()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Written by a process that ends, and so gives its memory back.
        with OwnProcess(partial(write_captioners, folder, precisions, options.tiny)):
            pass
        results: dict[str, Any] = {"formats": measure(folder, precisions, options.rounds)}
    if not options.tiny:
        file = results_folder() / "programs.json"
        write_results(file, command_line("benchmarks.programs"), results)
    print(rows_of(results))


if __name__ == "__main__":
    command(run)
