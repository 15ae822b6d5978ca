"""What `benchmarks.memory` measures: a training run that says what it holds, stage by stage.

`python -m benchmarks.measured_training FOLDER` does with FOLDER/data and FOLDER/features what
`training.train` does, but for the prior on pairs of words: load the captions, learn a tokenizer
from them, tokenise, train some batches. After each it prints a line of JSON, of what is held then.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import pytorch_lightning as pl
import torch

from model.config import CaptionerConfig, MapperConfig
from model.layers.memory import release_free_memory
from model.network.captioner import ClipCap
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.language_model import language_model
from training.captioner.module import CaptionerModule
from training.captioner.tokenizer import END
from training.command import command
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.encoding.feature_file import FeatureFile

#: In order; `start` is the process with its libraries alone.
STAGES = ("start", "load", "tokenizer", "tokenise", "train")


def resident(process: int) -> dict[str, float]:
    """Resident memory of a process in MB: anonymous (a tmpfs is that too), and pages of files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: round(sum(int(fields[field].split()[0]) for field in own) * 1024 / 1e6, 1)
        for name, own in (("anonymous_mb", ("RssAnon", "RssShmem")), ("file_mb", ("RssFile",)))
    }


def train(folder: Path, batches: int) -> None:
    """Do it; says on stdout when a stage has ended, and what it took until then."""
    settings = load_config(["train.mapper={kind: mlp, prefix_length: 10}"]).train
    torch.set_num_threads(1)
    _done("start")
    dataset = CaptionDataset.load(folder / "data")
    _done("load")
    tokenizer, gpt2 = language_model(settings, dataset)
    assert isinstance(gpt2, dict), "the settings train one from scratch"
    _done("tokenizer")
    end = tokenizer.token_to_id(END)
    features = FeatureFile(folder / "features")
    captions = [
        TokenizedCaptions(
            dataset,
            split,
            features.features,
            features.rows(dataset.ids(split)),
            tokenizer,
            end,
            settings.max_tokens,
        )
        for split in ("train", "val")
    ]
    _done("tokenise")
    config = CaptionerConfig(
        clip=None,
        gpt2=gpt2,
        mapper=MapperConfig(**vars(settings.mapper)),
        preprocessing=features.encoder.preprocessing,
        feature_width=features.encoder.shape[-1],
        normalize_feature=False,
        end_token_id=end,
    )
    module = CaptionerModule(ClipCap(config), settings, batches, lambda: (), lambda _: 0.0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=batches,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = CaptionDataModule(
        *captions, settings.batch_size, settings.seed, settings.captions_together
    )
    trainer.fit(module, data)
    _done("train")


def _done(stage: str) -> None:
    release_free_memory()  # what is free but kept, some 50 MB more or less from run to run
    spent = {"cpu_seconds": round(time.process_time(), 1)}
    print(json.dumps({"stage": stage, **spent, **resident(os.getpid())}), flush=True)


def main() -> None:
    """Train on the folder of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with data/ and features/")
    parser.add_argument("--batches", type=int, required=True, help="training batches")
    options = parser.parse_args()
    train(options.folder, options.batches)


if __name__ == "__main__":
    command(main)
