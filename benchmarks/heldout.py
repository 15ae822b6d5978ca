"""How good the captions of the default captioner are, on scenes drawn for this measurement.

The scenes that `make train` draws were looked at whenever a setting was chosen. So `python -m
benchmarks.heldout` draws other ones, with a seed that was never used for a decision: 1,000 of the
kind `test` and 1,000 of the kind `compositional`, whose pairs of colour and thing no training
caption has. It runs `training.prepare` and `training.evaluate` on them with a copy of the
checkpoint, whose own figures stay, and writes the scores into `benchmarks/results/scenes.json`.
`python -m benchmarks.readme` then shows them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from model.refusal import Refusal
from training.command import command

SEED = 20261130
SPLITS = ("test", "compositional")


def measure(checkpoint: Path, seed: int, count: int, work: Path) -> dict[str, dict[str, float]]:
    """Draw the scenes, caption and score them.

    Args:
        checkpoint: Folder of the captioner.
        seed: Of the scenes.
        count: Scenes of each kind.
        work: An empty folder.

    Returns:
        Kind of scenes -> its scores, under the names that `training.evaluate` gives them.

    Raises:
        Refusal: A command failed.
    """
    copy, data, out = work / "checkpoint", work / "scenes", work / "report"
    shutil.copytree(checkpoint, copy)
    shares = "{train: 0.0, val: 0.0, test: 0.5, compositional: 0.5}"
    run_command(
        *("training.prepare", "prepare.source=scenes", f"scenes.seed={seed}"),
        *(f"scenes.count={2 * count}", f"scenes.fractions={shares}", f"scenes.out={data}"),
    )
    run_command(
        *("training.evaluate", f"evaluate.data={data}", f"evaluate.checkpoint={copy}"),
        *(f"evaluate.out={out}", f"evaluate.splits=[{','.join(SPLITS)}]"),
        "evaluate.gate_images=0",  # the pipeline measures the precisions
    )
    metrics = json.loads((out / "metrics.json").read_text())
    return {split: metrics[split] for split in SPLITS}


def run_command(module: str, *words: str) -> None:
    """Run a command of the pipeline, with its progress on this terminal.

    Raises:
        Refusal: It failed.
    """
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False)
    if done.returncode:
        raise Refusal(f"python -m {module} failed with status {done.returncode}; see above")


def main() -> None:
    """Measure and write the results."""
    parser = options_parser(__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    parser.add_argument("--count", type=int, default=1000, help="scenes of each kind")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "clipcap")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if options.count < 1:
        raise Refusal(f"--count is {options.count}; it must be 1 or more")
    if not (options.checkpoint / "config.json").is_file():
        raise Refusal(
            f"{options.checkpoint} is no checkpoint folder; run make train or give --checkpoint DIR"
        )
    with tempfile.TemporaryDirectory() as work:
        splits = measure(options.checkpoint, options.seed, options.count, Path(work))
    scenes = dict.fromkeys(SPLITS, options.count)
    results = {"seed": options.seed, "scenes": scenes, "splits": splits}
    write_results(options.out / "scenes.json", command_line("benchmarks.heldout"), results)
    print(f"figures: {options.out / 'scenes.json'}")


if __name__ == "__main__":
    command(main)
