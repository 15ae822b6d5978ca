"""What the quality head costs: the time to caption with it and without it.

`python -m benchmarks.quality_head [--checkpoint DIR]` exports a checkpoint twice, with its quality
head and without, and captions the same pixels with both in turns. The time is the processor time of
the process with one thread, so that other programs on the machine hardly change it; of each
captioner the fastest turn counts.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import ROOT, command_line, options_parser
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import export_torchscript
from model.options import GenerationOptions
from model.refusal import Refusal
from training.command import command


def fastest(
    artifacts: dict[str, Artifact], pixels: torch.Tensor, options: GenerationOptions, turns: int
) -> dict[str, float]:
    """Processor seconds of the fastest turn of each captioner, from pixels to captions."""
    best = dict.fromkeys(artifacts, float("inf"))
    for turn in range(turns + 2):
        for name, artifact in artifacts.items():
            begin = time.process_time()
            artifact.caption(artifact.encode(pixels), options)
            if turn >= 2:  # the first turns allocate
                best[name] = min(best[name], time.process_time() - begin)
    return best


def main() -> None:
    """Measure and print a table."""
    parser = options_parser(__doc__)
    shipped = ROOT / "training" / "pretrained" / "scenes-captioner"
    parser.add_argument("--checkpoint", type=Path, default=shipped)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    checkpoint = Checkpoint.load(options.checkpoint)
    if checkpoint.quality is None:
        raise Refusal(f"{options.checkpoint} has no quality head; python -m training.quality")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        plain = Path(work) / "checkpoint"
        dataclasses.replace(checkpoint, quality=None).save(plain)
        artifacts = {}
        for name, folder in (("without", plain), ("with", options.checkpoint)):
            export_torchscript(folder, Path(work) / name)
            artifacts[name] = Artifact.load(Path(work) / name)
        side = checkpoint.captioner.config.preprocessing.size
        print(command_line("benchmarks.quality_head"))
        for batch in (1, 16):
            pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
            for beams in (1, 5):
                chosen = checkpoint.generation.updated({"num_beams": beams})
                found = fastest(artifacts, pixels, chosen, max(1, options.turns // batch))
                share = found["with"] / found["without"] - 1
                print(
                    f"{batch:2} pictures, {beams} beams: {1e3 * found['without']:.2f} ms without, "
                    f"{1e3 * found['with']:.2f} ms with, {share:+.1%}"
                )


if __name__ == "__main__":
    command(main)
