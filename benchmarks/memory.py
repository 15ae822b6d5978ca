"""How much memory training takes as the captions become more: 10 thousand to a million.

`python -m benchmarks.memory` generates data sets of these sizes, with five captions of random words
to an image and a random pooled feature of each image, and runs `python -m training.train` on each:
an MLP mapper as in the paper, all other settings at their defaults, one epoch cut to some batches.
It prints a table and writes `benchmarks/results/memory.json`.

The memory of the training process is read every 5 ms (Linux). Only anonymous memory counts, which
the machine must have. The kernel drops pages of files (features, tokens, libraries) when memory is
short.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, resident, write_results
from benchmarks.pages import table
from model.refusal import Refusal
from training.command import command
from training.config import load_config
from training.data.dataset import Picture, write_index, writing_dataset
from training.encoding.encoder import Encoder
from training.encoding.feature_shards import writing_features

SIZES = (10_000, 100_000, 1_000_000)
PER_IMAGE = 5
#: The same for all sizes, so that only training captions become more.
VAL_IMAGES = 100
SETTINGS = ("features.kind=pooled", "train.mapper={kind: mlp, prefix_length: 10}", "train.epochs=1")
SECONDS_APART = 0.005


def make_data(folder: Path, captions: int) -> float:
    """Write a data set without image files, and its feature file, with random content.

    Args:
        folder: Where `data` and `features` go.
        captions: How many training captions.

    Returns:
        Size of the training captions in UTF-8, in MB.
    """
    config = load_config(SETTINGS)
    rng = random.Random(1)
    words = ["".join(rng.choices("aeioulnrst", k=rng.randint(1, 8))) for _ in range(2_000)]
    words += config.train.pair_prior * 20  # often enough to be a token each, as the prior wants
    count = captions // PER_IMAGE + VAL_IMAGES
    size = 0

    def images() -> Iterator[Picture]:
        nonlocal size
        for number in range(1, count + 1):
            texts = [" ".join(rng.choices(words, k=rng.randint(8, 14))) for _ in range(PER_IMAGE)]
            split = "val" if number <= VAL_IMAGES else "train"
            size += sum(map(len, texts)) if split == "train" else 0
            yield Picture(number, f"{number:07d}.jpg", texts, split)

    with writing_dataset(folder / "data") as data:
        write_index(data, "random words", images())
    encoder = Encoder(config.features.clip, config.features.kind).identity
    numbers = np.random.default_rng(1)
    with writing_features(folder / "features", encoder, [{}]) as writer, writer.shard(0) as rows:
        for start in range(1, count + 1, 4096):
            ids = range(start, min(start + 4096, count + 1))
            rows.add(ids, numbers.standard_normal((len(ids), *encoder.shape), np.float32))
    return round(size / 1e6, 1)


def measure(folder: Path, batches: int) -> dict[str, float]:
    """Run `training.train` on what `make_data` wrote.

    Args:
        folder: What `make_data` wrote; the checkpoint goes into `checkpoint`.
        batches: Training batches.

    Returns:
        The highest anonymous memory, `peak_mb`, and the CPU time of the whole command,
        `cpu_seconds`.

    Raises:
        Refusal: The command failed.
    """
    places = {"data": "data", "features": "features", "out": "checkpoint"}
    places |= {"work": "work", "curves": "curves"}
    words = [sys.executable, "-m", "training.train", *SETTINGS]
    words += [f"train.{name}={folder / place}" for name, place in places.items()]
    words.append(f"+train.trainer.limit_train_batches={batches}")
    # One thread of torch, whose buffers are then the same on every machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    peak, used = 0.0, _cpu_seconds()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            try:
                peak = max(peak, resident(process.pid)["anonymous"])
            except (OSError, KeyError):  # it has just ended
                break
            time.sleep(SECONDS_APART)
        if process.wait():
            log.seek(0)
            raise Refusal(f"training.train failed: {log.read()[-500:].strip()}")
    return {"peak_mb": peak, "cpu_seconds": round(_cpu_seconds() - used, 1)}


def _cpu_seconds() -> float:
    """Of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_table(results: dict[str, Any]) -> str:
    """A row for each size."""
    columns = {"captions": "{captions:,}", "their text": "{caption_mb:.1f} MB"}
    columns |= {"peak": "{peak_mb:.0f} MB", "CPU time": "{cpu_seconds:.0f} s"}
    return table(columns, results["runs"])


def main() -> None:
    """Measure every size; write the results, print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--captions", type=int, nargs="+", default=SIZES, help="training captions")
    parser.add_argument("--batches", type=int, default=50, help="training batches of 128 captions")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if min(options.captions) < 500:
        raise Refusal(f"--captions is {min(options.captions)}; each must be 500 or more")
    if options.batches < 1:
        raise Refusal(f"--batches is {options.batches}; it must be 1 or more")
    results: dict[str, Any] = {"batches": options.batches, "runs": []}
    for captions in sorted(options.captions):
        with tempfile.TemporaryDirectory() as temporary:
            size = make_data(Path(temporary), captions)
            run = measure(Path(temporary), options.batches)
        results["runs"].append({"captions": captions, "caption_mb": size, **run})
        write_results(options.out / "memory.json", command_line("benchmarks.memory"), results)
    print(memory_table(results))


if __name__ == "__main__":
    command(main)
