"""What leaving parts of GPT-2 out would bring, and what it would cost.

`python -m benchmarks.pruning` measures both sides. Time: captioners of real size with random
weights whose feed-forward layers lack 10, 25 or 50% of their neurons, or whose vocabulary is a
fourth, 8 pictures to captions of 20 tokens with 5 beams, each in a process of its own and in turn.
Quality: the trained captioner (`models/clipcap`) without the neurons that norms least (the norm of
what a neuron reads times the norm of what it writes), not trained on, captions pictures of the test
split. Writes `pruning.json` into `benchmarks/results/KIND` of processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import GPT2LMHeadModel

from benchmarks.contestants import ours, write_contestants
from benchmarks.decode import captions, in_turn
from benchmarks.machine import machine, results_folder, served
from benchmarks.own_process import OwnProcess
from benchmarks.real_size import VOCABULARY, real_size_checkpoint
from benchmarks.table import Table
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.layers.precision import PRECISIONS
from model.refusal import Refusal
from training.command import command
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.evaluate import caption_split
from training.evaluation.scoring import cider

#: Neurons of GPT-2 124M's feed-forward layers.
INNER = 3072
#: Parts of them that are left out.
SHARES = (0.0, 0.1, 0.25, 0.5)
BATCH, BEAMS = 8, 5


def pruned(gpt2: GPT2LMHeadModel, share: float) -> None:
    """Silence this share of each feed-forward layer's neurons, as removing them would."""
    for block in gpt2.transformer.h:
        reads, writes = block.mlp.c_fc.weight, block.mlp.c_proj.weight  # [E, N], [N, E]
        norms = reads.norm(dim=0) * writes.norm(dim=1)
        with torch.no_grad():
            writes[norms.argsort()[: round(share * len(norms))]] = 0.0


def qualities(checkpoint: str) -> dict[str, float]:
    """Share left out -> CIDEr on the test split."""
    settings = load_config([f"evaluate.checkpoint={checkpoint}"]).evaluate
    dataset = CaptionDataset.load(settings.data)
    found = {}
    for share in SHARES:
        captioner = Checkpoint.load(checkpoint)
        pruned(captioner.captioner.gpt2, share)
        written = caption_split(eager_artifact(captioner), dataset, "test", settings)
        texts = {i: caption.text for i, caption in written.items()}
        found[name(share)] = cider(texts, {i: dataset.captions[i] for i in texts})
    return found


def times(precision: str, rounds: int, quick: bool) -> dict[str, float]:
    """What is left out -> seconds."""
    small: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 1} if quick else {}
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1} if quick else {}
    sizes = {name(share): {"n_inner": round(INNER * (1 - share)) // 16 * 16} for share in SHARES}
    sizes["vocabulary of a fourth"] = {"vocab_size": VOCABULARY // 4}
    threads = torch.get_num_threads()
    calls: dict[tuple[Any, ...], Callable[[], tuple[float, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        for number, (what, size) in enumerate(sizes.items()):
            folder = Path(temporary, str(number))
            write_contestants(
                real_size_checkpoint(clip=tiny, gpt2={**small, **size}), folder, [precision]
            )
            make = partial(ours, folder, precision)
            own = OwnProcess(threads, [make])
            stack.callback(own.close)
            own.wait()
            calls[(what,)] = partial(own.timed, partial(captions, make, BATCH, BEAMS))
        seconds, _ = in_turn(calls, rounds)
    return {what: statistics.median(values) for (what,), values in seconds.items()}


def pruning_table(results: Mapping[str, Any]) -> Table:
    """What leaving parts out brings and costs."""
    seconds, scores = results["seconds"], results["CIDEr"]
    rows = [
        (
            what,
            f"{1e3 * value:.0f}",
            f"{value / seconds['nothing']:.0%}",
            f"{scores[what]:.2f}" if what in scores else "",
        )
        for what, value in seconds.items()
    ]
    note = (
        f"`{results['command']}`, {results['threads']} threads, {results['date']}. Times: "
        f"8 pictures, 5 beams, 20 tokens, {results['precision']}, real size, random weights. "
        "CIDEr: the default captioner on the test split, without those of its feed-forward neurons "
        "that norms least, and not trained on."
    )
    columns = ("left out of GPT-2", "ms", "of the time", "CIDEr")
    return Table("Pruning", columns, rows, note)


def name(share: float) -> str:
    """In words."""
    return f"{share:.0%} of the neurons" if share else "nothing"


def main() -> None:
    """Measure; write the table and the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=PRECISIONS, default=served(), help="what is timed")
    parser.add_argument("--checkpoint", default="models/clipcap", help="what is pruned")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--quick", action="store_true", help="times of tiny captioners")
    parser.add_argument("--out", type=Path, default=results_folder(), help="folder of the results")
    options = parser.parse_args()
    if options.quick and options.out == results_folder():
        raise Refusal("--quick measures nothing worth keeping; give it another folder with --out")
    scores = qualities(options.checkpoint)
    seconds = times(options.precision, options.rounds, options.quick)
    results = {
        **machine("benchmarks.pruning"),
        "precision": options.precision,
        "seconds": {what: round(value, 4) for what, value in seconds.items()},
        "CIDEr": {what: round(value, 4) for what, value in scores.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pruning.json").write_text(json.dumps(results, indent=1) + "\n")
    Console(width=110).print(pruning_table(results).rich())


if __name__ == "__main__":
    command(main)
