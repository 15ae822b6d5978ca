"""What `training.clip` writes: a Hugging Face folder with figures and a README."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from transformers import CLIPModel, PreTrainedTokenizerBase

from model.image.preprocessing import Preprocessing
from model.pretrained.preprocessor_config import write_preprocessing
from model.whole_folder import whole_folder
from training.config import Clip
from training.evaluation.report.marked_block import replaced_block


def save_model(
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    preprocessing: Preprocessing,
    settings: Clip,
    figures: dict[str, float],
    pictures: int,
) -> None:
    """Write the folder aside, then put it in place.

    In a README that is there already only the marked block is replaced. So the user's words stay.
    """
    clip.set_attn_implementation("sdpa")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(figures.items()))
    words = shlex.join(["python", "-m", "training.clip", *sys.argv[1:]])
    block = (
        f"Trained on {settings.data} with this command: `{words}`\n\n"
        f"Seed {settings.seed}, {pictures} training pictures, {settings.epochs} epochs, "
        f"base: {settings.base or 'none, from scratch'}, tuning: {settings.tuning}. "
        "On the data set's test split:\n\n"
        f"| measure | value |\n|---|---|\n{rows}"
    )
    folder = Path(settings.out) / "model"
    file, begin, end = folder / "README.md", "<!-- training -->", "<!-- /training -->"
    before = file.read_text(encoding="utf-8") if file.exists() else "# CLIP for image captions"
    readme = replaced_block(before, begin, block, end)
    readme = readme or f"{before.rstrip()}\n\n{begin}\n{block}\n{end}\n"
    with whole_folder(folder, "retrieval.json") as partial:
        clip.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_preprocessing(preprocessing, partial)
        (partial / "retrieval.json").write_text(json.dumps(figures, indent=2) + "\n")
        (partial / "README.md").write_text(readme, encoding="utf-8")
