"""Whether unusual pictures are told from usual ones, and what the score costs.

`python -m benchmarks.ood [--count 200] [--training 3000]` draws training and test scenes with a
seed of its own and fits the score of `model.ood`, and simpler ones beside it, to the features of
the training scenes. Then it says how well each tells test scenes from pictures of another kind:
scenes of a place that the training scenes did not have, drawn art of two packages of Debian
(`tuxpaint-stamps-default` and `openclipart-png`), noise, and blurred scenes. The figure is AUROC:
the chance that an unusual picture has a higher score than a test scene; 0.5 is that of a guess.

The encoder that ships was trained on scenes of all places, so an unseen place is new to the score
and not to the encoder. It writes `ood.json` and `ood.png` into `benchmarks/results/drift` and
prints a table; with `--page docs/drift.md` it writes it there.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.corruptions import CORRUPTIONS
from benchmarks.drawn_scenes import draw, encoded, picture
from benchmarks.figures import measured, write_figures
from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from benchmarks.robustness import load
from model.artifact import Artifact
from model.ood import pooled
from model.refusal import Refusal
from training.command import command
from training.evaluation.scores.reliability import auroc
from training.ood_score.fitting import fit, whitening_of
from training.scenes.world.catalogue import PLACES

SEED = 20261202
#: Packages of Debian -> where they put their pictures.
PACKAGES = {
    "tuxpaint-stamps-default": Path("/usr/share/tuxpaint/stamps"),
    "openclipart-png": Path("/usr/share/openclipart"),
}
#: Most pixels and least side of a picture of a package that is used.
MOST_PIXELS, LEAST_SIDE = 4_000_000, 32
#: Groups of the score; the default of training.conf.
GROUPS = 64
#: Neighbours, and training images that they are looked for among.
NEIGHBOURS, CORE = 5, 1000
#: Calls that are timed; the fastest third is quoted, since other programs take the machine's time.
CALLS = 300

Score = Callable[[Tensor], Tensor]


def scores_of(training: Tensor) -> dict[str, Score]:
    """Ways to score features [n, D]; the last is the one that ships."""
    mean, deviation = training.mean(0), training.std(0)
    centred = (training - mean).double()
    whitening = whitening_of(centred).float()
    core = (training - mean)[:CORE] @ whitening
    unit = torch.nn.functional.normalize(training[:CORE], dim=-1)
    groups = fit(training, training[:2], GROUPS, seed=1)

    def diagonal(features: Tensor) -> Tensor:
        return ((features - mean) / deviation).square().sum(-1)

    def mahalanobis(features: Tensor) -> Tensor:
        return ((features - mean) @ whitening).square().sum(-1)

    def cosine(features: Tensor) -> Tensor:
        own = torch.nn.functional.normalize(features, dim=-1)
        return torch.cdist(own, unit).topk(NEIGHBOURS, largest=False).values[:, -1]

    def neighbours(features: Tensor) -> Tensor:
        own = (features - mean) @ whitening
        return torch.cdist(own, core).topk(NEIGHBOURS, largest=False).values[:, -1]

    def relative(features: Tensor) -> Tensor:
        return groups.distance(features).square() * features.shape[1] - mahalanobis(features)

    return {
        "diagonal": diagonal,
        "neighbours, cosine": cosine,
        "neighbours, whitened": neighbours,
        "Mahalanobis": mahalanobis,
        "relative": relative,
        "groups": groups.distance,
    }


def art(folder: Path, count: int) -> Iterator[Image.Image]:
    """Pictures of a package, on white, chosen by chance.

    Raises:
        Refusal: The package is not installed.
    """
    files = sorted(folder.rglob("*.png")) if folder.is_dir() else []
    if not files:
        package = next(name for name, where in PACKAGES.items() if where == folder)
        raise Refusal(f"{folder} has no pictures; apt-get install {package}")
    random.Random(SEED).shuffle(files)
    found = 0
    for file in files:
        try:
            with Image.open(file) as opened:
                if opened.width * opened.height > MOST_PIXELS or min(opened.size) < LEAST_SIDE:
                    continue
                drawn = opened.convert("RGBA")
        except Image.DecompressionBombError:  # one of them has 600 million pixels
            continue
        white = Image.new("RGBA", drawn.size, "white")
        white.alpha_composite(drawn)
        yield white.convert("RGB")
        found += 1
        if found == count:
            return


def pure_noise(count: int) -> Iterator[Image.Image]:
    """Pictures of independent pixels."""
    chance = np.random.default_rng(SEED)
    for _ in range(count):
        yield Image.fromarray(chance.integers(0, 256, (256, 256, 3), np.uint8))


def cost(artifact: Artifact) -> dict[str, float]:
    """Milliseconds an image of the score, alone and in a batch, and of the encoder alone."""
    side = artifact.preprocessing.size
    found: dict[str, float] = {}
    for count in (1, 16):
        pixels = torch.rand(count, 3, side, side)
        features = artifact.encode(pixels)
        calls: dict[str, Callable[[], Any]] = {
            "score": lambda features=features: artifact.ood(features),
            "encode": lambda pixels=pixels: artifact.encode(pixels),
        }
        for name, call in calls.items():
            times = []
            for _ in range(CALLS if name == "score" else CALLS // 20):
                begin = time.perf_counter()
                call()
                times.append((time.perf_counter() - begin) / count * 1000)
            fastest = sorted(times)[: max(1, len(times) // 3)]
            found[f"{name}_ms_batch_{count}"] = round(statistics.mean(fastest), 5)
    return found


def report(written: Mapping[str, Any]) -> str:
    """The results in Markdown: a table of the AUROCs, and what the score costs."""
    cost = written["cost"]
    return "\n\n".join(
        (
            measured(written),
            table(written),
            f"The score takes {cost['score_ms_batch_1']:.2f} ms of a picture alone and "
            f"{cost['score_ms_batch_16']:.2f} ms in a batch of 16, beside "
            f"{cost['encode_ms_batch_1']:.1f} and {cost['encode_ms_batch_16']:.1f} ms of "
            "the encoder.",
        )
    )


def table(found: Mapping[str, Any]) -> str:
    """The AUROCs as a table in Markdown."""
    methods = list(next(iter(found["auroc"].values())))
    lines = [f"| | {' | '.join(methods)} |", f"|---{'|---' * len(methods)}|"]
    for kind, row in found["auroc"].items():
        lines.append(f"| {kind} | {' | '.join(f'{row[each]:.3f}' for each in methods)} |")
    return "\n".join(lines)


def plot(found: Mapping[str, Any], file: Path) -> None:
    """A dot for each method and kind of picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(found["auroc"])
    methods = list(found["auroc"][kinds[0]])
    figure, axis = pyplot.subplots(figsize=(8, 0.34 * len(kinds) + 1.4))
    for method in methods:
        ours = method == methods[-1]
        values = [found["auroc"][kind][method] for kind in kinds]
        axis.plot(values, kinds, "D" if ours else "o", label=method, ms=8 if ours else 4)
    axis.axvline(0.5, color="grey", lw=0.8)
    axis.invert_yaxis()
    axis.set_xlabel("AUROC against test scenes")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(file, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Measure, write the results and print the table."""
    parser = options_parser(__doc__)
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--training", type=int, default=3000, help="training scenes")
    shipped = ROOT / "training" / "pretrained" / "scenes-captioner"
    parser.add_argument("--checkpoint", type=Path, default=shipped)
    parser.add_argument("--out", type=Path, default=RESULTS / "drift", help="folder of the results")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page that gets the figures")
    options = parser.parse_args()
    if options.count < 1 or options.training < 100:
        raise Refusal("--count must be 1 or more, and --training 100 or more")
    artifact = load(options.checkpoint)
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        found = measure(artifact, Path(work), options.count, options.training)
    found["cost"] = cost(artifact)
    options.out.mkdir(parents=True, exist_ok=True)
    written = write_results(options.out / "ood.json", command_line("benchmarks.ood"), found)
    plot(found, options.out / "ood.png")
    print(report(written))
    if options.page:
        write_figures(options.page, "benchmarks.ood", report(written))


def measure(artifact: Artifact, work: Path, count: int, training: int) -> dict[str, Any]:
    """AUROC of every kind of unusual picture and every score."""
    scenes = draw(work / "scenes", SEED, train=training, test=2 * count)
    places = {
        int(image_id): scene["place"]
        for image_id, scene in json.loads((scenes.root / "truth.json").read_text()).items()
    }
    train, test = list(scenes.ids("train")), list(scenes.ids("test"))

    def features(images: Iterator[Image.Image], total: int, name: str) -> Tensor:
        bar = track(images, name, total, console=Console(stderr=True))
        return torch.cat([pooled(each) for each in encoded(artifact, iter(bar))])

    known = features((picture(scenes, i) for i in train), len(train), "training scenes")
    usual = features((picture(scenes, i) for i in test), len(test), "test scenes")
    unusual = {
        "tuxpaint-stamps-default": features(
            art(PACKAGES["tuxpaint-stamps-default"], count), count, "stamps"
        ),
        "openclipart-png": features(art(PACKAGES["openclipart-png"], count), count, "clip art"),
        "pure noise": features(pure_noise(count), count, "noise"),
    }
    for name in ("blur", "noise"):
        for strength in (3, 5):
            chance = np.random.default_rng(SEED)
            worse = (CORRUPTIONS[name](picture(scenes, i), strength, chance) for i in test[:count])
            kind = f"{name}, strength {strength}"
            unusual[kind] = features(worse, count, kind)
    ways = scores_of(known)
    found: dict[str, dict[str, float]] = {}
    for place in PLACES:
        without = scores_of(known[torch.tensor([places[i] != place for i in train])])
        new = torch.tensor([places[i] == place for i in test])
        found[f"a place unseen: {place}"] = {
            name: _auroc(score(usual[~new]), score(usual[new])) for name, score in without.items()
        }
    for kind, own in unusual.items():
        found[kind] = {name: _auroc(score(usual), score(own)) for name, score in ways.items()}
    return {
        "training_scenes": len(train),
        "test_scenes": len(test),
        "pictures_of_a_kind": {kind: len(own) for kind, own in unusual.items()},
        "seed": SEED,
        "auroc": found,
    }


def _auroc(usual: Tensor, unusual: Tensor) -> float:
    labels = [False] * len(usual) + [True] * len(unusual)
    ranked = auroc([*usual.tolist(), *unusual.tolist()], labels)
    assert ranked is not None
    return round(ranked, 4)


if __name__ == "__main__":
    command(main)
