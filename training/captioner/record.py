"""What is recorded of a training: in its checkpoints for resuming it, and in `training.json`."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from training.captioner.data import CaptionDataModule
from training.captioner.resuming import run_settings
from training.config import Config, Train
from training.data.dataset import CaptionDataset
from training.encoding.feature_file import EncoderIdentity

#: Settings that a resumed run may change, since they do not change what is learned.
_FREE = frozenset(
    {
        *("data", "features", "out", "work", "curves", "resume"),
        *("clip.pixels", "clip.workers", "clip.max_pixels"),
        *("trainer.accelerator", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
        *("trainer.log_every_n_steps", "trainer.profiler"),
    }
)


def resumable_settings(settings: Train, encoder: EncoderIdentity) -> dict[str, Any]:
    """The settings that an interrupted run must be resumed with, by key."""
    own = run_settings("train", settings, settings.data, _FREE)
    return {**own, "SHA-256 of the encoder": encoder.sha256}


def training_record(
    config: Config, dataset: CaptionDataset, data: CaptionDataModule, trainer: pl.Trainer
) -> dict[str, Any]:
    """What the captioner was trained on and how, for `training.json` and the model card.

    Args:
        config: All settings.
        dataset: The data set.
        data: Its captions that were trained on.
        trainer: Lightning's trainer after the training.

    Returns:
        Values by name; what the training did, where it can differ from the settings.
    """
    settings = config.train
    return {
        "data": dataset.description or dataset.root.name,
        "training_pictures": len(set(data.train.image_ids)),
        "training_captions": len(data.train),
        "encoder": config.features.clip,
        "language_model": settings.gpt2.base or "GPT-2 from scratch",
        "tuning": settings.tuning,
        "clip_tuning": settings.clip.tuning,
        "epochs": trainer.current_epoch,
        "optimiser_steps": trainer.global_step,
        "batch_size": settings.batch_size,
        "batches_per_step": trainer.accumulate_grad_batches * trainer.world_size,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_ratio": settings.warmup_ratio,
        "word_dropout": settings.word_dropout,
        "pair_prior": ", ".join(settings.pair_prior) or "none",
        "turned": ", ".join("/".join(pair) for pair in settings.turned) or "none",
        "turned_weight": settings.turned_weight,
        "seed": settings.seed,
    }
