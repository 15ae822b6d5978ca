"""How fast captions are written, side by side: the original, Hugging Face, BLIP, and the artifact.

`python -m benchmarks.decode` builds the captioner of real size (see `benchmarks.real_size`; random
weights) once, and measures in one run, all contestants in turn, round after round: pictures to
captions of exactly 20 tokens, the encoder alone, one decode step, and the matrix products of a step
alone. It prints the medians with the targets, and writes `decode.json` and `decode.png` into
`benchmarks/results`; `python -m benchmarks.tables` puts them on the page. `--scaling` measures the
artifact against batch, beams, tokens and threads instead, into `scaling.json` and `scaling.png`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from benchmarks.contestants import GROUPS, Contestant, artifacts, checkpoint, contestants
from benchmarks.decode_report import draw, table
from benchmarks.decode_step import ROWS, steps
from benchmarks.readme import ROOT, processor
from benchmarks.scaling import draw_scaling, scaling
from model.artifact import Artifact
from model.captioner import ClipCap
from model.refusal import Refusal
from training.command import command

RESULTS = Path(__file__).resolve().parent / "results"
TOKENS = 20
#: A call that takes longer is its own warm-up.
QUICK_SECONDS = 4.0
#: Of the processor's flags, those that multiply matrices.
MULTIPLYING = ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def in_turn(
    calls: dict[tuple[Any, ...], Callable[[], Any]], rounds: int
) -> tuple[dict[tuple[Any, ...], list[float]], dict[tuple[Any, ...], Any]]:
    """Seconds of each call in each round, and what each gave; one round before is not counted.

    What a quick call finds is what the others left of the caches and of the memory it had, which
    no server that captions all day would meet: it is called once more, right before it counts.
    """
    seconds: dict[tuple[Any, ...], list[float]] = {key: [] for key in calls}
    given, took = {}, {}
    for number in range(rounds + 1):
        for key, call in calls.items():
            if number and took[key] < QUICK_SECONDS:
                call()
            since = time.perf_counter()
            given[key] = call()
            took[key] = time.perf_counter() - since
            if number:
                seconds[key].append(took[key])
    return seconds, given


def captioning(
    everyone: list[Contestant], rounds: int
) -> tuple[list[dict[str, Any]], dict[tuple[Any, ...], Any]]:
    """Pictures to captions, and the encoder alone; (name, batch, beams) -> tokens written."""
    calls: dict[tuple[Any, ...], Callable[[], Any]] = {}
    for one in everyone:
        for batch, beams in one.cases:
            x = pictures(batch, one.side)
            calls["caption", one.name, batch, beams] = lambda o=one, x=x, n=beams: o(x, n, TOKENS)
            if not one.name.startswith(("BLIP", "original")):
                calls["encode", one.name, batch, 0] = lambda o=one, x=x: o.encode(x)
    seconds, given = in_turn(calls, rounds)
    tokens = {key[1:]: value for key, value in given.items() if key[0] == "caption"}
    return entries(seconds), tokens


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


@torch.inference_mode()
def off_by(
    exported: dict[str, Artifact], pixels: torch.Tensor, captions: list[list[int]]
) -> dict[str, float]:
    """Precision -> how far its log-probability of the fp32 captions is off, in nats per token.

    Of the picture it is furthest off for; each weighs its own features of the pixels.
    """
    tokens = torch.tensor(captions)
    means = {}
    for precision, artifact in exported.items():
        weighed = artifact.module.weigh(artifact.encode(pixels), tokens)  # [B, T] or [B]
        means[precision] = weighed.view(len(tokens), -1).sum(1) / tokens.shape[1]
    return {
        precision: float((mean - means["fp32"]).abs().max())
        for precision, mean in means.items()
        if precision != "fp32"
    }


@torch.inference_mode()
def measure(
    captioner: ClipCap,
    exported: dict[str, Artifact],
    groups: tuple[str, ...],
    rounds: int,
    quick: bool,
) -> dict[str, Any]:
    """Everything that `decode.json` holds of this run."""
    everyone = contestants(captioner, exported, groups, quick)
    measured, tokens = captioning(everyone, rounds)
    same, off = {}, {}
    if "ours" in groups:
        mine = tokens["ours fp32", 8, 5]
        off = off_by(exported, pictures(8, captioner.config.preprocessing.size), mine)
        if "hf" in groups:
            same = {
                f"batch {batch}": tokens["ours fp32", batch, 5]
                == tokens["Hugging Face fp32", batch, 5]
                for batch in (1, 8)
            }
    del everyone
    calls, missing = steps(captioner.gpt2, exported, groups, torch.get_num_threads())
    # A step takes milliseconds: of some in a row the first finds the caches filled by others.
    row = 1 if quick else 8
    keyed = {("step", name, ROWS, 0): repeated(call, row) for name, call in calls.items()}
    seconds, _ = in_turn(keyed, rounds if quick else max(rounds, 5))
    measured += entries({key: [v / row for v in values] for key, values in seconds.items()})
    return {"measured": measured, "same_tokens": same, "nats_off": off, "missing": missing}


def repeated(call: Callable[[], Any], times: int) -> Callable[[], None]:
    """The call, so many times."""

    def run() -> None:
        for _ in range(times):
            call()

    return run


def machine() -> dict[str, Any]:
    """Where and when."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return {
        "processor": processor(),
        "instructions": [name for name in MULTIPLYING if name in flags],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Measure; write table, JSON and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--only", default=",".join(GROUPS), help="some of the groups (default all)")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, to try this")
    parser.add_argument("--scaling", action="store_true", help="against batch, beams, tokens, ...")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    groups = tuple(options.only.split(","))
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise Refusal(f"--only knows no {', '.join(unknown)}; give some of {','.join(GROUPS)}")
    if options.rounds < 1:
        raise Refusal(f"--rounds is {options.rounds}; it must be 1 or more")
    out = options.out or (ROOT / "build" / "decode" if options.quick else RESULTS)
    warnings.simplefilter("ignore")  # TorchScript's end, quantize_dynamic's end
    transformers.logging.set_verbosity_error()
    captioner = checkpoint(options.quick)
    exported = {}
    if "ours" in groups or options.scaling:
        with tempfile.TemporaryDirectory() as folder:
            exported = artifacts(captioner, Path(folder))
    name = "scaling" if options.scaling else "decode"
    head = {"command": f"python -m benchmarks.decode{' --scaling' * options.scaling}", **machine()}
    if options.scaling:
        results = {**head, **scaling(exported, options.rounds, options.quick)}
    else:
        rounds = options.rounds
        found = measure(captioner.captioner, exported, groups, rounds, options.quick)
        results = {**head, "tokens": TOKENS, **found}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    if options.scaling:
        draw_scaling(out / "scaling.png", results)
        return
    draw(out / "decode.png", results)
    Console(width=110).print(*table(results))


if __name__ == "__main__":
    command(main)
