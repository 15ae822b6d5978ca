"""What a training step costs: ours beside a plain loop that does what the original code does.

`python -m benchmarks.train` trains a captioner of the published sizes with random weights (GPT-2
124M, an MLP mapper with a prefix of 10) on random captions as long as COCO's, with GPT-2 frozen and
with all of it tuned. The plain loop computes in float32, pads all captions to one length, computes
logits for the padding too, and gradients for weights that are not trained. Ours is Lightning's loop
with the project's module and settings. Each system has a process of its own; they run in turn. It
prints a table, and writes `train.json` into `benchmarks/results/KIND`.

The limit is the time of the matrix products alone that a step needs: of tokens without padding, in
our precision, without the products of gradients that nobody needs.

Axes: B captions of a batch, U images, K prefix length, T tokens, E width, V vocabulary.
"""

from __future__ import annotations

import functools
import gc
import itertools
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2LMHeadModel

from benchmarks.decode import processes
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.original_training import caption_loss, padded
from benchmarks.real_size import random_checkpoint
from benchmarks.training_figures import TUNINGS, train_table
from model.layers.memory import release_free_memory
from model.network.captioner import IGNORED, ClipCap
from model.refusal import Refusal
from training.captioner.data import CaptionBatch
from training.captioner.module import CaptionerModule
from training.command import command
from training.config import Train, load_config
from training.precision import training_precision

#: Tokens of COCO's captions in GPT-2's vocabulary: their mean, their standard deviation and the
#: most. The original pads to the mean and ten standard deviations, at most to the longest.
MEAN, DEVIATION, LONGEST = 11.3, 2.6, 55
PADDED = int(min(MEAN + 10 * DEVIATION, LONGEST))
#: Captions of an image in COCO.
PER_IMAGE = 5


def settings(tuning: str, precision: str, batch: int, together: int) -> Train:
    """The settings of COCO's experiment, but for those that are measured."""
    given = [f"train.tuning={tuning}", f"train.batch_size={batch}"]
    given += [f"train.captions_together={together}", "train.trainer.accelerator=cpu"]
    given.append(f"train.precision={training_precision(precision)}")
    return load_config(["experiment=coco-mlp", *given]).train


@functools.cache
def captioner(tiny: bool) -> ClipCap:
    """The captioner without its encoder: training reads features."""
    made = random_checkpoint(tiny).captioner
    made.clip = None
    return made


def batches(batch: int, together: int, tiny: bool) -> list[CaptionBatch]:
    """Eight batches of random features and captions, the same for every system."""
    config, random = captioner(tiny).config, np.random.default_rng(1)
    vocabulary = captioner(tiny).gpt2.config.vocab_size
    found = []
    for _ in range(8):
        lengths = random.normal(MEAN, DEVIATION, batch).round().clip(5, LONGEST).astype(int)
        labels = torch.full((batch, lengths.max()), IGNORED)
        for row, length in zip(labels, lengths, strict=True):
            row[:length] = torch.from_numpy(random.integers(1, vocabulary, length))
        owners = torch.arange(batch) // together
        features = torch.from_numpy(
            random.standard_normal((int(owners[-1]) + 1, config.feature_width), np.float32)
        )
        found.append((features, owners, labels))
    return found


class Clock(pl.Callback):
    """Notes when each batch has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


@torch.enable_grad()
def ours(
    tuning: str, precision: str, batch: int, together: int, steps: int, tiny: bool
) -> list[float]:
    """Seconds of `steps` optimiser steps of Lightning's loop, after one that is not counted."""
    own = settings(tuning, precision, batch, together)
    module = CaptionerModule(captioner(tiny), own, val_images=lambda _: [], val_cider=lambda _: 0.0)
    clock = Clock()
    trainer = pl.Trainer(
        **own.trainer,
        precision=cast(Any, own.precision),
        max_steps=steps + 1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = list(itertools.islice(itertools.cycle(batches(batch, together, tiny)), steps + 1))
    trainer.fit(module, DataLoader(cast(Any, data), batch_size=None))
    return [after - before for before, after in itertools.pairwise(clock.ends)]


@torch.enable_grad()
def plain(tuning: str, batch: int, steps: int, tiny: bool) -> list[float]:
    """Seconds of `steps` optimiser steps of the original's loop, after one that is not counted.

    Each caption comes with its image's feature. Token 0 pads, and is left out of the loss only.
    """
    model, kept = captioner(tiny), list(captioner(tiny).mapper.parameters())
    gpt2: GPT2LMHeadModel = model.gpt2.requires_grad_(True)  # the original never switches it off
    gpt2.train(tuning == "full")
    trained = kept if tuning == "frozen" else [*kept, *gpt2.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=2e-5)
    data = itertools.cycle(batches(batch, 1, tiny))
    seconds = []
    for _ in range(steps + 1):
        features, _, labels = next(data)
        tokens = padded(labels, PADDED)
        begin = time.perf_counter()
        optimizer.zero_grad()
        caption_loss(model, features, tokens).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def products(tuning: str, precision: str, batch: int, together: int, tiny: bool) -> list[float]:
    """Seconds of the matrix products alone of a step of each batch.

    A layer has one product forward, one for the gradient of its input, and one for that of its
    weights if it is tuned.
    """
    model = captioner(tiny)
    dtype = torch.bfloat16 if training_precision(precision) == "bf16-mixed" else torch.float32
    gpt2, prefix = model.gpt2.config, model.config.mapper.prefix_length
    width, inner = gpt2.n_embd, gpt2.n_inner or 4 * gpt2.n_embd
    seconds = []
    for features, _, labels in batches(batch, together, tiny):
        tokens = int((labels != IGNORED).sum())
        rows = len(features) * prefix + tokens - batch  # the last token is not read
        tuned = 1 + (tuning == "full")
        calls = [
            (rows, width, 3 * width, gpt2.n_layer, tuned),
            (rows, width, width, gpt2.n_layer, tuned),
            (rows, width, inner, gpt2.n_layer, tuned),
            (rows, inner, width, gpt2.n_layer, tuned),
            (tokens, width, gpt2.vocab_size, 1, tuned),
        ]
        for layer in (layer for layer in model.mapper.modules() if isinstance(layer, nn.Linear)):
            calls.append((len(features), layer.in_features, layer.out_features, 1, 2))
        made = [
            (torch.randn(count, fan_in, dtype=dtype), torch.randn(fan_out, fan_in, dtype=dtype))
            for count, fan_in, fan_out, _, _ in calls
        ]
        begin = time.perf_counter()
        for (inputs, weight), (_, _, _, times, gradients) in zip(made, calls, strict=True):
            for _ in range(times):
                outputs = inputs @ weight.T
                _ = outputs @ weight
                if gradients == 2:
                    _ = outputs.T @ inputs
        seconds.append(time.perf_counter() - begin)
    return seconds


def peak(function: Callable[[], Any], tiny: bool) -> tuple[Any, float]:
    """What a function returns, and the most memory that its process has had, in MB.

    Gradients and the optimiser's state are given back: the other systems need the memory.
    """
    result = function()
    captioner(tiny).zero_grad(set_to_none=True)
    gc.collect()
    release_free_memory()
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(batch: int, rounds: int, steps: int, tiny: bool) -> dict[str, Any]:
    """Everything that `train.json` holds of this run."""
    calls: dict[tuple[str, str], Callable[[], list[float]]] = {}
    for tuning in TUNINGS:
        calls[tuning, "the original's loop"] = partial(plain, tuning, batch, steps, tiny)
        for precision, together in (("32-true", 1), ("auto", 1), ("auto", PER_IMAGE)):
            if precision == "auto" and together == 1 and training_precision("auto") == "32-true":
                continue  # the same as before
            name = f"ours, {training_precision(precision)}"
            name += f", {together} captions of an image together" if together > 1 else ""
            calls[tuning, name] = partial(ours, tuning, precision, batch, together, steps, tiny)
        calls[tuning, "products alone"] = partial(products, tuning, "auto", batch, 1, tiny)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    memory: dict[tuple[str, str], float] = {}
    names = {" ".join(key): key for key in calls}
    with processes({name: partial(captioner, tiny) for name in names}) as homes:
        for _ in range(rounds):
            for name, key in names.items():
                _, (own, memory[key]) = homes[name].timed(partial(peak, calls[key], tiny))
                seconds[key] += own
    tokens = statistics.mean(int((own != IGNORED).sum()) for _, _, own in batches(batch, 1, tiny))
    measured = [
        {
            "tuning": tuning,
            "system": system,
            "seconds": round(statistics.median(own), 4),
            "steps": [round(value, 4) for value in own],
            "peak_mb": round(memory[tuning, system]),
        }
        for (tuning, system), own in seconds.items()
    ]
    return {"batch": batch, "tokens": round(tokens, 1), "measured": measured}


def main() -> None:
    """Measure; write the results and the picture, print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--batch", type=int, default=16, help="captions of a batch")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn that are counted")
    parser.add_argument("--quick", action="store_true", help="a tiny captioner, to try the command")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    for name in ("batch", "rounds", "steps"):
        if getattr(options, name) < 1:
            raise Refusal(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    out = options.out or (ROOT / "build" / "train-speed" if options.quick else results_folder())
    measured = measure(options.batch, options.rounds, options.steps, options.quick)
    write_results(out / "train.json", command_line("benchmarks.train"), measured)
    print(train_table(measured))


if __name__ == "__main__":
    command(main)
