"""How fast captions are written: ours beside the original, Hugging Face, BLIP and the limit.

`python -m benchmarks.decode` writes a captioner of real size with random weights
(`benchmarks.real_size`). Then it measures in rounds, one system after the other, each in its own
process: images to captions of exactly 20 tokens, the encoder alone, and the matrix products of a
decode step alone, which are the limit of the machine. It prints the medians as tables, and writes
`decode.json` into `benchmarks/results/KIND`. `python -m benchmarks.readme` then writes them into
`docs/speed.md`.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from rich.progress import Progress

from benchmarks.captioners import CASES, caption, captioners, encode, products, write_captioner
from benchmarks.machine import (
    ROOT,
    OwnProcess,
    command_line,
    options_parser,
    results_folder,
    write_results,
)
from benchmarks.pages import BATCH, ROWS, decode_tables
from benchmarks.real_size import BEAMS, TOKENS
from model.layers.precision import available
from model.refusal import Refusal
from training.command import command

#: A call of this many seconds or more needs no warm-up of its own.
WARM_UP_BELOW = 4.0
#: Task, system, batch, beams (0 where there is no search).
Key = tuple[str, str, int, int]
Calls = dict[Key, Callable[[], tuple[float, Any]]]


def in_turn(calls: Calls, rounds: int) -> tuple[dict[Key, list[float]], dict[Key, Any]]:
    """Make every call in every round; a round before the first is not counted.

    The other systems have filled the processor's caches before a call. A server that captions all
    day has its own data there, so a fast call is made once more, right before the one that counts.

    Returns:
        Seconds of each call in each round, and its last result.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in calls}
    results: dict[Key, Any] = {}
    last: dict[Key, float] = {}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=(rounds + 1) * len(calls))
        for number in range(rounds + 1):
            for key, call in calls.items():
                bar.update(task, description=f"round {number}: {' '.join(map(str, key))}")
                if number and last[key] < WARM_UP_BELOW:
                    call()
                last[key], results[key] = call()
                if number:
                    seconds[key].append(last[key])
                bar.advance(task)
    return seconds, results


def measure(folder: Path, groups: Sequence[str], rounds: int, quick: bool) -> dict[str, Any]:
    """Everything that `decode.json` holds of this run.

    Args:
        folder: What `write_captioner` wrote.
        groups: Keys of `captioners.CASES`.
        rounds: How often each call is counted.
        quick: The captioner is tiny.
    """
    systems = captioners(folder, groups, quick)
    with processes({n: make for each in systems.values() for n, make in each.items()}) as homes:
        calls: Calls = {}
        for group, made in systems.items():
            for name, make in made.items():
                timed = homes[name].timed
                for batch, beams in CASES[group]:
                    captioned = partial(caption, make, batch, beams)
                    calls["caption", name, batch, beams] = partial(timed, captioned)
                if group == "ours":
                    encoded = partial(encode, make, BATCH)
                    calls["encode", name, BATCH, 0] = partial(timed, encoded)
        seconds, written = in_turn(calls, rounds)
    # The products take milliseconds: of some in a row, the first finds caches filled by others.
    row = 1 if quick else 8
    limits = {f"products {name}": partial(products, folder, name) for name in available()}
    with processes(limits if "ours" in groups else {}) as homes:
        calls = {
            ("products", name, ROWS, 0): partial(home.timed, partial(repeat, limits[name], row))
            for name, home in homes.items()
        }
        in_rows, _ = in_turn(calls, rounds if quick else max(rounds, 5))
    seconds |= {key: [value / row for value in values] for key, values in in_rows.items()}
    same = {
        f"batch {batch}": written["caption", "ours fp32", batch, BEAMS]
        == written["caption", "Hugging Face fp32", batch, BEAMS]
        for batch in (1, BATCH)
        if {"ours", "hf"} <= set(groups)
    }
    measured = [
        {
            **dict(zip(("task", "system", "batch", "beams"), key, strict=True)),
            "seconds": round(statistics.median(values), 6),
            "rounds": [round(value, 6) for value in values],
        }
        for key, values in seconds.items()
    ]
    return {"tokens": TOKENS, "measured": measured, "same_tokens": same}


@contextlib.contextmanager
def processes(made: Mapping[str, Callable[[], Any]]) -> Iterator[dict[str, OwnProcess]]:
    """A process for each function, which it calls at its start.

    They start one after the other: making a system needs more memory than having it.
    """
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(OwnProcess(make)) for name, make in made.items()}


def repeat(make: Callable[[], Callable[[], None]], times: int) -> None:
    """Several times in a row what `make` returns."""
    for _ in range(times):
        make()()


def main() -> None:
    """Measure; write the results, print the tables."""
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each call is counted")
    parser.add_argument("--only", choices=CASES, nargs="+", help="some of the systems")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, to try the command")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    if options.only and not (options.quick or options.out):
        raise Refusal(
            "--only measures some of the systems, and the kept results have all of them; "
            "give another folder with --out DIR"
        )
    if options.rounds < 1:
        raise Refusal(f"--rounds is {options.rounds}; it must be 1 or more")
    groups = tuple(options.only or CASES)
    out = options.out or (ROOT / "build" / "decode" if options.quick else results_folder())
    warnings.simplefilter("ignore")  # torch.jit is deprecated
    transformers.logging.set_verbosity_error()
    precisions = available() if "ours" in groups else ()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Written by a process that ends, and so gives its memory back.
        with OwnProcess(partial(write_captioner, folder, precisions, options.quick)):
            pass
        measured = measure(folder, groups, options.rounds, options.quick)
    write_results(out / "decode.json", command_line("benchmarks.decode"), measured)
    print(decode_tables(measured))


if __name__ == "__main__":
    command(main)
