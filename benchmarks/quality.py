"""How good captioners become: the original's recipe and ours, a switch at a time.

`python -m benchmarks.quality` draws scenes, encodes them once, and trains every recipe with several
seeds on the same features and splits, with the same sizes of GPT-2 and as many epochs. Each recipe
adds one switch to the one before it, from the original's to ours. It prints a table, and writes
`quality.json` and `quality.png` into `benchmarks/results`. A run that was killed goes on where it
stopped if the command is given again.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from benchmarks.machine import RESULTS, ROOT, command_line, options_parser, write_results
from benchmarks.original_training import BATCH, RATE, train_original
from benchmarks.training_figures import FIGURES, SPLITS, quality_table, spread
from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.export import eager_artifact
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.hugging_face import load_clip
from model.refusal import Refusal
from training.captioner.data import TokenizedCaptions
from training.captioner.language_model import language_model
from training.command import command
from training.config import Config, load_config
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder
from training.encoding.feature_file import FeatureFile
from training.encoding.text_encoder import TextEncoder
from training.evaluation.scores.checks import find_checks
from training.evaluation.scores.clip_score import clip_score
from training.evaluation.scores.scoring import cider

#: Most tokens of a caption of the original (67 there, but 64 is our limit).
ORIGINAL_TOKENS = 64
#: Learning rate of all recipes but the original as published.
OUR_RATE = 1e-3
POOLED = ("features.kind=pooled", "train.mapper={kind: mlp, prefix_length: 10}")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A way to train and to caption.

    Attributes:
        name: For the table.
        settings: Of `training.train`, over the defaults; None for the original's code.
        rate: Learning rate of the original's code.
        beams: Of the search.
        start: Name of the recipe whose captioner is trained on.
        trains: Else the captioner of `start` is only asked in another way.
    """

    name: str
    settings: tuple[str, ...] | None = ()
    rate: float = RATE
    beams: int = 1
    start: str | None = None
    trains: bool = True


def recipes() -> list[Recipe]:
    """All recipes; a captioner that another one starts from comes before it."""
    # As many captions a batch as the original, so that there are as many steps.
    same = (f"train.batch_size={BATCH}", f"train.learning_rate={OUR_RATE}", "train.turned=[]")
    ours = (*same, "train.pair_prior=[]", "train.warmup_ratio=1.0")
    warm = (*same, "train.pair_prior=[]", "train.warmup_ratio=0.05")
    prior = (*same, "train.warmup_ratio=0.05")
    ema = (*prior, "train.ema=0.99")
    critical = (
        *(*prior, "train.objective=self_critical", "train.batch_size=64"),
        *("train.learning_rate=1e-4", "train.epochs=2", "train.max_tokens=32"),
    )
    return [
        Recipe("the original", None),
        Recipe("the original, our learning rate", None, rate=OUR_RATE),
        Recipe("+ end token, our batches", (*POOLED, *ours)),
        Recipe("+ warm-up as a share", (*POOLED, *warm)),
        Recipe("+ patch mapper", warm),
        Recipe("+ prior on pairs", prior),
        Recipe("+ EMA", ema),
        Recipe("+ beam search", beams=5, start="+ prior on pairs", trains=False),
        Recipe("+ CLIP tuned too", (*prior, "train.clip.tuning=full"), beams=5),
        Recipe("+ self-critical", critical, beams=5, start="+ prior on pairs"),
    ]


class Scenes:
    """The drawn data set with its features, and the scores of captioners on it.

    Args:
        work: Folder of everything that is written.
        count: Scenes of all splits together.
    """

    def __init__(self, work: Path, count: int) -> None:
        self.work, self.data = work, work / "data"
        fractions = "{train: 0.7, val: 0.05, test: 0.15, compositional: 0.1}"
        if not (self.data / "split.json").exists():
            run(
                *("training.prepare", f"scenes.count={count}", "scenes.seed=5"),
                *(f"scenes.out={self.data}", f"scenes.fractions={fractions}"),
            )
        self.dataset = CaptionDataset.load(self.data)
        if len(self.dataset.files) != count:
            there = len(self.dataset.files)
            raise Refusal(f"{self.data} has {there} scenes, not {count}; give another --work")
        for kind in ("pooled", "patches"):
            run(
                *("training.features", f"features.data={self.data}", f"features.kind={kind}"),
                f"features.out={self.features(kind)}",
            )
        checks = find_checks(self.data)
        assert checks is not None
        self.checks = checks
        folder = load_config().features.clip
        clip = load_clip(folder, CLIPModel).eval()
        self.texts = TextEncoder(clip, AutoTokenizer.from_pretrained(folder))

    def features(self, kind: str) -> Path:
        """Folder of the features."""
        return self.work / f"features-{kind}"

    @torch.no_grad()
    def score(self, folder: Path, beams: int, tokens: int | None) -> dict[str, dict[str, float]]:
        """Split -> figures of a captioner's captions.

        Args:
            folder: Its checkpoint.
            beams: Of the search.
            tokens: Tokens at most; None for its default.
        """
        checkpoint = Checkpoint.load(folder)
        artifact = eager_artifact(checkpoint)
        options = dataclasses.replace(checkpoint.generation, num_beams=beams)
        if tokens is not None:
            options = dataclasses.replace(options, max_tokens=tokens)
        file = FeatureFile(self.features(checkpoint.captioner.config.mapper.feature_kind))
        pooled = FeatureFile(self.features("pooled"))
        found = {}
        for split in SPLITS:
            ids = self.dataset.ids(split)
            captions: dict[int, str] = {}
            for start in range(0, len(ids), 64):
                part = ids[start : start + 64]
                features = torch.from_numpy(file.features[file.rows(part)])
                best = [own[0].text for own in artifact.caption(features, options)]
                captions.update(zip(part, best, strict=True))
            checked = self.checks.split()
            for image_id, text in captions.items():
                checked.add(image_id, text)
            figures = checked.figures()
            figures["CIDEr"] = cider(captions, {i: self.dataset.captions[i] for i in ids})
            images = torch.from_numpy(pooled.features[pooled.rows(ids)])
            figures["CLIPScore"] = self._clip_score(images, list(captions.values()))
            found[split] = {name: round(figures.get(name, 0.0), 4) for name in FIGURES}
        return found

    def _clip_score(self, images: Tensor, captions: Sequence[str]) -> float:
        """Mean CLIPScore by the CLIP of the features, which knows no word of the paper's prompt."""
        return float(clip_score(F.normalize(images, dim=-1), self.texts.features(captions)).mean())


def train_recipe(recipe: Recipe, scenes: Scenes, seed: int, epochs: int, out: Path) -> None:
    """Train a recipe; the checkpoint folder is `out`."""
    given = [f"train.seed={seed}", f"train.epochs={epochs}", f"train.data={scenes.data}"]
    if recipe.settings is None:
        config = load_config([*given, *POOLED])
        _train_original(config, scenes, recipe.rate, out)
        return
    kind = "pooled" if POOLED[0] in recipe.settings else "patches"
    given += [f"train.features={scenes.features(kind)}", f"train.out={out}"]
    given += [f"train.work={out}.work", f"train.curves={out}.curves"]
    given += [f"train.clip.pixels={scenes.work / 'pixels'}", *recipe.settings]
    if recipe.start is not None:
        given.append(f"train.init={folder_of(scenes, recipe.start, seed)}")
    run("training.train", *given)


def _train_original(config: Config, scenes: Scenes, rate: float, out: Path) -> None:
    """The original's code, with the tokenizer and GPT-2 sizes of ours."""
    settings, file = config.train, FeatureFile(scenes.features("pooled"))
    torch.manual_seed(settings.seed)
    tokenizer, gpt2 = language_model(settings, scenes.dataset)
    assert isinstance(gpt2, dict)
    stop = tokenizer.token_to_id(".")
    assert stop is not None  # every byte is a token
    encoder = Encoder(config.features.clip, "pooled")
    captioner = ClipCap(
        CaptionerConfig(
            clip=encoder.model.config,
            gpt2=gpt2,
            mapper=MapperConfig(kind="mlp", prefix_length=10),
            preprocessing=encoder.preprocessing,
            feature_width=file.features.shape[-1],
            normalize_feature=False,
            end_token_id=stop,
        )
    )
    captioner.clip = None
    rows = file.rows(scenes.dataset.ids("train"))
    captions = TokenizedCaptions(
        scenes.dataset, "train", file.features, rows, tokenizer, stop, settings.max_tokens
    )
    train_original(captioner, captions, settings.epochs, rate)
    captioner.clip = encoder.model
    Checkpoint(captioner, tokenizer, GenerationOptions(max_tokens=ORIGINAL_TOKENS)).save(out)


def folder_of(scenes: Scenes, name: str, seed: int) -> Path:
    """The checkpoint folder of a recipe and seed."""
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    return scenes.work / f"{'-'.join(words).lower()}-{seed}"


def run(module: str, *words: str) -> None:
    """Run a command of the pipeline.

    Raises:
        Refusal: It failed.
    """
    line = [sys.executable, "-m", module, *words]
    done = subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refusal(f"python -m {module} failed: {done.stderr.strip()[-500:]}")


def measure(
    scenes: Scenes, chosen: Sequence[Recipe], seeds: Sequence[int], epochs: int, kept: Path
) -> list[dict[str, Any]]:
    """Figures of every recipe and seed; those in the file `kept` are not measured again."""
    found: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    done = {(each["recipe"], each["seed"]) for each in found}
    for seed in seeds:
        for recipe in chosen:
            if (recipe.name, seed) in done:
                continue
            print(f"{recipe.name}, seed {seed} ...", file=sys.stderr)
            out = folder_of(scenes, recipe.name, seed)
            if recipe.trains:
                train_recipe(recipe, scenes, seed, epochs, out)
            else:
                assert recipe.start is not None
                out = folder_of(scenes, recipe.start, seed)
            tokens = ORIGINAL_TOKENS if recipe.settings is None else None
            figures = scenes.score(out, recipe.beams, tokens)
            found.append({"recipe": recipe.name, "seed": seed, **figures})
            kept.write_text(json.dumps(found, indent=2) + "\n")
    order = [recipe.name for recipe in chosen]
    wanted = [each for each in found if each["recipe"] in order and each["seed"] in seeds]
    return sorted(wanted, key=lambda each: (order.index(each["recipe"]), each["seed"]))


def draw(file: Path, results: Mapping[str, Any]) -> None:
    """CIDEr of each recipe, a dot for each seed, and a chart for each split."""
    figure, charts = plt.subplots(1, len(SPLITS), figsize=(11, 4.5), sharey=True)
    for chart, split in zip(charts, SPLITS, strict=True):
        values = spread(results["measured"], split, "CIDEr")
        for row, own in enumerate(values.values()):
            chart.plot(own, [row] * len(own), "o", alpha=0.6)
        chart.set_yticks(range(len(values)), list(values))
        chart.set_title(split)
        chart.set_xlabel("CIDEr")
        chart.grid(axis="x", alpha=0.3)
    charts[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train and score every recipe; write the results, print the tables."""
    parser = options_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes of all splits together")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each recipe")
    parser.add_argument("--epochs", type=int, default=4, help="of every training but self-critical")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    for name in ("scenes", "seeds", "epochs"):
        if getattr(options, name) < 1:
            raise Refusal(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    options.work.mkdir(parents=True, exist_ok=True)
    scenes = Scenes(options.work, options.scenes)
    seeds = range(1, options.seeds + 1)
    kept = options.work / f"figures-{options.epochs}-epochs.json"
    measured = measure(scenes, recipes(), seeds, options.epochs, kept)
    sizes = {split: len(scenes.dataset.ids(split)) for split in ("train", *SPLITS)}
    results = {"scenes": sizes, "epochs": options.epochs, "measured": measured}
    write_results(options.out / "quality.json", command_line("benchmarks.quality"), results)
    draw(options.out / "quality.png", results)
    for split in SPLITS:
        print(f"\n### {split}\n\n{quality_table(results, split)}")


if __name__ == "__main__":
    command(main)
