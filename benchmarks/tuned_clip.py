"""What a CLIP that is fine-tuned on few pictures learns, and what it forgets.

`python -m benchmarks.tuned_clip` fine-tunes the CLIP of the scenes on a few hundred pictures of a
kind that it has not seen: negatives, on which each colour is its opposite. It does so with one
setting at a time, and measures the retrieval of a caption among the test pictures: on further
negatives (what was learned), and on scenes as they are (what was forgotten).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from benchmarks.machine import processor
from benchmarks.pages import table
from model.network.encoder import pooled_and_patches
from model.pretrained.hugging_face import load_clip
from model.pretrained.preprocessor_config import read_preprocessing
from training.config import load_config
from training.contrastive.captioned_pixels import caption_tokens
from training.contrastive.retrieval import first_of_its_kind, recall_at
from training.contrastive.train import MAX_PIXELS, train_clip
from training.data.dataset import CaptionDataset
from training.encoding.pixel_cache import cached_pixels, normalised
from training.prepare import prepare

BASE = "training/pretrained/scenes-clip"
#: Name of a row -> the settings that differ from the first one.
VARIANTS: dict[str, tuple[str, ...]] = {
    "fine-tuned": (),
    "anchor_weight=1": ("clip.anchor_weight=1",),
    "anchor_weight=3": ("clip.anchor_weight=3",),
    "anchor_weight=10": ("clip.anchor_weight=10",),
    "tuning=lora": ("clip.tuning=lora", "clip.learning_rate=1e-3"),
    "hard_negatives=0.25": ("clip.hard_negatives=0.25",),
    "hard_negatives=1": ("clip.hard_negatives=1",),
    "augmentation.crop=0.15": ("clip.augmentation.crop=0.15",),
    "augmentation.colour=0.2": ("clip.augmentation.colour=0.2",),
    "augmentation.blur=1": ("clip.augmentation.blur=1",),
}


def data_sets(folder: Path, pictures: int) -> tuple[Path, Path]:
    """Folders of two data sets: negatives to train on, and scenes as they are."""
    negatives, plain = folder / "negatives", folder / "plain"
    fixed = ["scenes.sides=[144,256]"]
    if not plain.exists():
        parts = "{train: 0.02, val: 0.02, test: 0.96, compositional: 0.0}"
        prepare(
            load_config(
                [*fixed, "scenes.seed=771", "scenes.count=520", f"scenes.fractions={parts}"]
                + [f"scenes.out={plain}"]
            )
        )
    if not negatives.exists():
        count = pictures + 550
        train, val, test = (round(each / count, 6) for each in (pictures, 50, 500))
        parts = f"{{train: {train}, val: {val}, test: {1 - train - val}, compositional: 0.0}}"
        aside = folder / "negatives.making"
        prepare(
            load_config(
                [*fixed, "scenes.seed=772", f"scenes.count={count}", f"scenes.fractions={parts}"]
                + [f"scenes.out={aside}"]
            )
        )
        for file in (aside / "images").iterdir():
            with Image.open(file) as opened:
                changed = ImageOps.invert(opened.convert("RGB"))
            changed.save(file, quality=90)
        aside.rename(negatives)
    return negatives, plain


@torch.inference_mode()
def retrieval(model: str, data: Path, cache: Path) -> dict[str, float]:
    """Retrieval between the test pictures of a data set and their captions."""
    clip, preprocessing = load_clip(model, CLIPModel).eval(), read_preprocessing(model)
    dataset, tokenizer = CaptionDataset.load(data), AutoTokenizer.from_pretrained(model)
    length: int = clip.config.text_config.max_position_embeddings
    texts = caption_tokens(dataset, "test", tokenizer, length).long()
    files = [dataset.files[i] for i in dataset.ids("test")]
    pixels = torch.from_numpy(cached_pixels(files, preprocessing, cache, MAX_PIXELS, 2)[:])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    images = torch.cat(
        [pooled_and_patches(clip, normalised(part, mean, std))[0] for part in pixels.split(64)]
    )
    different = first_of_its_kind(texts)
    words = torch.cat(
        [
            clip.text_projection(clip.text_model(input_ids=part).pooler_output)
            for part in texts[different].split(256)
        ]
    )
    owner = torch.arange(len(images)).repeat_interleave(different.sum(1))
    return recall_at(F.normalize(images, dim=-1), F.normalize(words, dim=-1), owner, (1, 5))


def measure(
    folder: Path, names: Iterable[str], seeds: Iterable[int], fixed: list[str], pictures: int
) -> None:
    """Train what is missing in the file of results, and add it."""
    negatives, plain = data_sets(folder, pictures)
    file = folder / "results.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if "base" not in found:
        both = {"own": negatives, "other": plain}
        found["base"] = {k: retrieval(BASE, data, folder / "cache") for k, data in both.items()}
        file.write_text(json.dumps(found, indent=2))
    for seed in seeds:
        for name in names:
            if f"{name}/{seed}" in found:
                continue
            out, start = folder / "run", time.monotonic()
            out.mkdir(exist_ok=True)
            if not (out / "cache").exists():
                (out / "cache").symlink_to((folder / "cache").resolve())
            given = [f"clip.base={BASE}", f"clip.data={negatives}", f"clip.out={out}"]
            settings = [*given, *fixed, *VARIANTS[name], f"clip.seed={seed}"]
            train_clip(load_config(settings).clip)
            model = str(out / "model")
            found[f"{name}/{seed}"] = {
                "seconds": time.monotonic() - start,
                "own": retrieval(model, negatives, folder / "cache"),
                "other": retrieval(model, plain, folder / "cache"),
            }
            file.write_text(json.dumps(found, indent=2))


def said(found: dict[str, Any]) -> str:
    """The results as a table; with several seeds the mean and the spread."""
    rows: dict[str, list[Any]] = {}
    for key, figures in found.items():
        rows.setdefault(key.partition("/")[0], []).append(figures)
    columns = {
        "pictures": "{name}",
        "negatives: caption of a picture": "{own}",
        "scenes: caption of a picture": "{other}",
        "seconds": "{seconds}",
    }
    lines = []
    for name, runs in rows.items():
        line = {
            "name": name,
            "seconds": f"{statistics.mean(r.get('seconds', 0) for r in runs):.0f}",
        }
        for part in ("own", "other"):
            values = [100 * run[part]["image_to_text_R@1"] for run in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            line[part] = f"{statistics.mean(values):.1f}{spread}"
        lines.append(line)
    return table(columns, lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/tuned-clip"))
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="names of rows")
    options = parser.parse_args()
    fixed = [
        f"clip.epochs={options.epochs}",
        f"clip.learning_rate={options.rate}",
        *("clip.caption_weight=0", "clip.batch_size=50", "clip.shift=0"),
        *("clip.checkpoint_every=100000", "+clip.trainer.enable_progress_bar=false"),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    measure(options.out, options.only, range(1, options.seeds + 1), fixed, options.pictures)
    print(said(json.loads((options.out / "results.json").read_text())))
    print(f"{options.pictures} pictures, {options.epochs} epochs, {processor()}")


if __name__ == "__main__":
    main()
