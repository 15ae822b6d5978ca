"""How fast captions are written, side by side: the original, Hugging Face, BLIP, and the artifact.

`python -m benchmarks.decode` builds the captioner of real size (see `benchmarks.real_size`; random
weights) once, and measures in one run, all contestants in turn, round after round, each in a
process of its own: pictures to captions of exactly 20 tokens, the encoder alone, one decode step,
and the matrix products of a step alone. It prints the medians with the targets, and writes
`decode.json` and `decode.png` into `benchmarks/results/KIND` of processor; `python -m
benchmarks.tables` puts them on the page. `--scaling` measures the artifact against batch, beams,
tokens, threads and image size instead, into `scaling.json` and `scaling.png`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress

from benchmarks.contestants import (
    CASES,
    GROUPS,
    Contestant,
    checkpoint,
    contestants,
    write_contestants,
)
from benchmarks.decode_report import draw, tables, targets
from benchmarks.decode_step import ROWS, Step, steps
from benchmarks.machine import ROOT, machine, results_folder
from benchmarks.own_process import OwnProcess
from benchmarks.scaling import draw_scaling, scaling
from benchmarks.target import target_table
from model.layers.precision import available
from model.refusal import Refusal
from training.command import command

TOKENS = 20
#: A call that takes longer is its own warm-up.
QUICK_SECONDS = 4.0


def in_turn(
    calls: dict[tuple[Any, ...], Callable[[], tuple[float, Any]]], rounds: int
) -> tuple[dict[tuple[Any, ...], list[float]], dict[tuple[Any, ...], Any]]:
    """Seconds of each call in each round, and what each gave; one round before is not counted.

    What a quick call finds is what the others left of the processor's caches, which no server that
    captions all day would meet: it is called once more, right before it counts.
    """
    seconds: dict[tuple[Any, ...], list[float]] = {key: [] for key in calls}
    given, took = {}, {}
    with Progress(console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=(rounds + 1) * len(calls))
        for number in range(rounds + 1):
            for key, call in calls.items():
                bar.update(shown, description=f"round {number}: {' '.join(map(str, key))}")
                if number and took[key] < QUICK_SECONDS:
                    call()
                took[key], given[key] = call()
                if number:
                    seconds[key].append(took[key])
                bar.advance(shown)
    return seconds, given


def measure(folder: Path, groups: tuple[str, ...], rounds: int, quick: bool) -> dict[str, Any]:
    """Everything that `decode.json` holds of this run."""
    captioners = contestants(folder, groups, quick)
    alone, missing = steps(folder, groups)
    with processes([pair for each in captioners.values() for pair in each.items()]) as homes:
        seconds, given = captioning(homes, captioners, rounds)
        off = nats_off(homes, captioners, given) if "ours" in groups else {}
    # A step takes milliseconds: of some in a row the first finds the caches filled by others.
    row = 1 if quick else 8
    with processes(list(alone.items())) as homes:
        calls = {
            ("step", name, ROWS, 0): partial(homes[home(name)].timed, partial(repeated, make, row))
            for name, make in alone.items()
        }
        in_steps, _ = in_turn(calls, rounds if quick else max(rounds, 5))
    seconds |= {key: [value / row for value in values] for key, values in in_steps.items()}
    same = {
        f"batch {batch}": given["caption", "ours fp32", batch, 5]
        == given["caption", "Hugging Face fp32", batch, 5]
        for batch in (1, 8)
        if {"ours", "hf"} <= set(groups)
    }
    measured = entries(seconds)
    return {"measured": measured, "same_tokens": same, "nats_off": off, "missing": missing}


@contextlib.contextmanager
def processes(made: Sequence[tuple[str, Callable[[], Any]]]) -> Iterator[dict[str, OwnProcess]]:
    """A process for each home, with all that is made there.

    They begin one after the other: what making something takes for a while would not fit into the
    memory several times.
    """
    makers: dict[str, list[Callable[[], Any]]] = {}
    for name, make in made:
        makers.setdefault(home(name), []).append(make)
    with contextlib.ExitStack() as stack:
        homes = {}
        for name, each in makers.items():
            homes[name] = OwnProcess(torch.get_num_threads(), each)
            stack.callback(homes[name].close)
            homes[name].wait()
        yield homes


def export(folder: Path, quick: bool, precisions: tuple[str, ...]) -> None:
    """The contestants' files, by a process that gives its memory back."""
    own = OwnProcess(torch.get_num_threads(), ())
    own.timed(partial(written, folder, quick, precisions))
    own.close()


def written(folder: Path, quick: bool, precisions: tuple[str, ...]) -> None:
    """What `export` has done elsewhere."""
    write_contestants(checkpoint(quick), folder, precisions)


def home(name: str) -> str:
    """Whose process something runs in: the products of a precision with the artifact of it."""
    return name.replace("products", "ours")


def captioning(
    homes: dict[str, OwnProcess],
    captioners: dict[str, dict[str, Callable[[], Contestant]]],
    rounds: int,
) -> tuple[dict[tuple[Any, ...], list[float]], dict[tuple[Any, ...], Any]]:
    """Pictures to captions, and the encoder alone, as `in_turn` gives them."""
    calls: dict[tuple[Any, ...], Callable[[], tuple[float, Any]]] = {}
    for group, makers in captioners.items():
        for name, make in makers.items():
            timed = homes[home(name)].timed
            for batch, beams in CASES[group]:
                calls["caption", name, batch, beams] = partial(
                    timed, partial(captions, make, batch, beams)
                )
                if group in ("hf", "ours"):
                    calls["encode", name, batch, 0] = partial(timed, partial(encode, make, batch))
    return in_turn(calls, rounds)


def captions(make: Callable[[], Contestant], batch: int, beams: int) -> list[list[int]]:
    """Token ids for pictures."""
    one = make()
    return one(pictures(batch, one.side), beams, TOKENS)


def encode(make: Callable[[], Contestant], batch: int) -> None:
    """The encoder alone; features stay where they are made."""
    one = make()
    one.encode(pictures(batch, one.side))


def repeated(make: Callable[[], Step], times: int) -> None:
    """A step, so many times."""
    for _ in range(times):
        make()()


def weighed(make: Callable[[], Contestant], captions: torch.Tensor) -> torch.Tensor:
    """Mean log-probability of the tokens of captions [B, T], [B], for features of its own."""
    one = make()
    assert one.score is not None
    return one.score(pictures(len(captions), one.side), captions).mean(1)


def nats_off(
    homes: dict[str, OwnProcess],
    captioners: dict[str, dict[str, Callable[[], Contestant]]],
    given: dict[tuple[Any, ...], Any],
) -> dict[str, float]:
    """Precision -> how far its log-probability of the fp32 captions is off, in nats per token.

    Of the picture it is furthest off for.
    """
    written = torch.tensor(given["caption", "ours fp32", 8, 5])
    means = {
        name.removeprefix("ours "): homes[name].timed(partial(weighed, make, written))[1]
        for name, make in captioners["ours"].items()
    }
    exact = means.pop("fp32")
    return {precision: float((mean - exact).abs().max()) for precision, mean in means.items()}


@functools.cache
def pictures(batch: int, side: int) -> torch.Tensor:
    """Pixels [B, 3, S, S]; a larger batch begins with the pictures of a smaller one."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, side, side, generator=generator)


def entries(seconds: dict[tuple[Any, ...], list[float]]) -> list[dict[str, Any]]:
    """The measurements as JSON has them."""
    return [
        {
            **dict(zip(("task", "who", "batch", "beams"), key, strict=True)),
            "seconds": round(statistics.median(values), 6),
            "rounds": [round(value, 6) for value in values],
        }
        for key, values in seconds.items()
    ]


def main() -> None:
    """Measure; write table, JSON and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--only", choices=GROUPS, nargs="+", help="some of the contestants")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, to try this")
    parser.add_argument("--scaling", action="store_true", help="against batch, beams, tokens, ...")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    groups = tuple(options.only or GROUPS)
    if options.scaling and options.only:
        raise Refusal("--scaling measures the artifact alone; leave --only out")
    if options.only and not (options.quick or options.out):
        raise Refusal("--only leaves contestants out; keep such results elsewhere, with --out DIR")
    if options.rounds < 1:
        raise Refusal(f"--rounds is {options.rounds}; it must be 1 or more")
    out = options.out or (ROOT / "build" / "decode" if options.quick else results_folder())
    warnings.simplefilter("ignore")  # TorchScript's end, quantize_dynamic's end
    transformers.logging.set_verbosity_error()
    name = "scaling" if options.scaling else "decode"
    head = machine("benchmarks.decode")
    rounds, quick = options.rounds, options.quick
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = "ours" in groups or options.scaling
        export(folder, quick, available() if ours else ())
        if options.scaling:
            results = {**head, **scaling(folder, rounds, quick)}
        else:
            results = {**head, "tokens": TOKENS, **measure(folder, groups, rounds, quick)}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    if options.scaling:
        draw_scaling(out / "scaling.png", results)
        return
    draw(out / "decode.png", results)
    shown = [*tables(results), target_table(targets(results))]
    Console(width=110).print(*(each.rich() for each in shown), *results["missing"])


if __name__ == "__main__":
    command(main)
