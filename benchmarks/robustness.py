"""How captions get worse with the pictures, and whether the out-of-distribution score warns first.

`python -m benchmarks.robustness [--count 100]` draws test scenes with a seed of its own, makes them
worse in seven ways and five strengths, and captions them with the shipped captioner. For each it
measures CIDEr, precision (the share of the stated things and colours that are there), the median
p-value of the score, and the share of pictures with a p-value up to 0.05, of which there are 5%
among usual pictures. It writes `robustness.json` and `robustness.png` into
`benchmarks/results/drift` and prints a table.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, Corruption
from benchmarks.drawn_scenes import draw, encoded, picture
from benchmarks.figures import measured, write_figures
from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.refusal import Refusal
from training.command import command
from training.data.dataset import CaptionDataset
from training.evaluation.scores.checks import find_checks
from training.evaluation.scores.scoring import cider

SEED = 20261201
#: A picture with a p-value up to this is called unusual.
ALARM = 0.05
#: Captions are called worse if precision has fallen by this much.
FALL = 0.05


def measure(
    artifact: Artifact, dataset: CaptionDataset, corruption: Corruption | None, strength: int
) -> dict[str, float]:
    """Caption the test pictures, each made worse, and score the captions.

    Args:
        artifact: The captioner, which has an out-of-distribution score.
        dataset: Drawn scenes.
        corruption: How pictures are made worse; None for not at all.
        strength: One of `STRENGTHS`.
    """
    ids = list(dataset.ids("test"))
    chance = np.random.default_rng(SEED)
    images = (picture(dataset, i) for i in ids)
    if corruption is not None:
        images = (corruption(image, strength, chance) for image in images)
    captions: list[str] = []
    p_values: list[float] = []
    for features in encoded(artifact, images):
        captions += [best[0].text for best in artifact.caption(features, artifact.defaults)]
        p_values += artifact.ood(features)[1].tolist()
    checks = find_checks(dataset.root)
    assert checks is not None
    split = checks.split()
    generated = dict(zip(ids, captions, strict=True))
    for image_id, caption in generated.items():
        split.add(image_id, caption)
    references = {i: dataset.captions[i] for i in ids}
    return {
        "CIDEr": round(cider(generated, references), 3),
        "precision": round(split.figures()["precision"], 4),
        "median_p_value": round(statistics.median(p_values), 4),
        "unusual": round(sum(each <= ALARM for each in p_values) / len(p_values), 4),
    }


def warned(rows: Sequence[Mapping[str, float]], usual: Mapping[str, float]) -> str:
    """Whether the score warns before captions get worse, in words.

    Args:
        rows: One for each strength, weakest first.
        usual: That of pictures as they are.
    """
    falls = [usual["precision"] - row["precision"] >= FALL for row in rows]
    alarms = [row["unusual"] >= 3 * ALARM for row in rows]  # three times as many as usual
    fall = falls.index(True) + 1 if any(falls) else None
    alarm = alarms.index(True) + 1 if any(alarms) else None
    if fall is None:
        return "captions stay right" + (f", the score warns at {alarm}" if alarm else "")
    if alarm is None:
        return f"worse from strength {fall}, never warned of"
    if alarm < fall:
        return f"worse from strength {fall}, warned of at {alarm}"
    if alarm == fall:
        return f"worse from strength {fall}, warned of at the same"
    return f"worse from strength {fall}, warned of only at {alarm}"


def report(written: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    return f"{measured(written)} {written['scenes']} test scenes.\n\n{table(written)}"


def table(found: Mapping[str, Any]) -> str:
    """The results as a table in Markdown: CIDEr, precision, share of unusual pictures."""
    strengths = [f"strength {strength}" for strength in STRENGTHS]
    lines = [f"| | {' | '.join(strengths)} | precision |", f"|---{'|---' * (len(STRENGTHS) + 1)}|"]
    for name, rows in found["corruptions"].items():
        cells = [_cell(row) for row in rows]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['warned'][name]} |")
    return "\n".join([f"As drawn: {_cell(found['usual'])}", "", *lines])


def _cell(row: Mapping[str, float]) -> str:
    return f"{row['CIDEr']:.2f} · {row['precision']:.1%} · {row['unusual']:.0%}"


def plot(found: Mapping[str, Any], file: Path) -> None:
    """Precision and the share of unusual pictures against strength, a panel for each corruption."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(11, 5), sharex=True, sharey=True)
    places = [0, *STRENGTHS]
    for axis, (name, rows) in zip(axes.flat, found["corruptions"].items(), strict=False):
        series = [found["usual"], *rows]
        axis.plot(places, [row["precision"] for row in series], "o-", label="precision")
        axis.plot(places, [row["unusual"] for row in series], "s--", label="p-value up to 0.05")
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    axes.flat[-1].axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="center", frameon=False)
    figure.supxlabel("strength (0: as drawn)", fontsize=10)
    figure.supylabel("share", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def load(folder: Path) -> Artifact:
    """The captioner of a checkpoint that knows its training pictures.

    Raises:
        Refusal: It does not know them.
    """
    artifact = eager_artifact(Checkpoint.load(folder))
    if artifact.ood_score is None:
        raise Refusal(f"{folder} has no ood.safetensors; python -m training.ood writes it")
    return artifact


def main() -> None:
    """Measure, write the results and print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--count", type=int, default=100, help="test scenes")
    shipped = ROOT / "training" / "pretrained" / "scenes-captioner"
    parser.add_argument("--checkpoint", type=Path, default=shipped)
    parser.add_argument("--out", type=Path, default=RESULTS / "drift", help="folder of the results")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page that gets the figures")
    options = parser.parse_args()
    if options.count < 1:
        raise Refusal(f"--count is {options.count}; it must be 1 or more")
    artifact = load(options.checkpoint)
    cases = [(name, strength) for name in CORRUPTIONS for strength in STRENGTHS]
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        dataset = draw(Path(work) / "scenes", SEED, test=options.count)
        usual = measure(artifact, dataset, None, 0)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in CORRUPTIONS}
        for name, strength in track(cases, "captioning", console=Console(stderr=True)):
            rows[name].append(measure(artifact, dataset, CORRUPTIONS[name], strength))
    found = {
        "scenes": options.count,
        "seed": SEED,
        "usual": usual,
        "corruptions": rows,
        "warned": {name: warned(own, usual) for name, own in rows.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    written = write_results(
        options.out / "robustness.json", command_line("benchmarks.robustness"), found
    )
    plot(found, options.out / "robustness.png")
    print(report(written))
    if options.page:
        write_figures(options.page, "benchmarks.robustness", report(written))


if __name__ == "__main__":
    command(main)
