"""What is recorded of a training: in its checkpoints for resuming it, and in `training.json`."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from model.checkpoint import weights_sha256
from model.pretrained.checkpoint_name import checkpoint_folder
from training.captioner.data import CaptionDataModule
from training.captioner.run.resuming import run_settings
from training.config import Config, Train
from training.data.dataset import CaptionDataset
from training.encoding.feature_file import EncoderIdentity

#: Settings that a resumed run may change, since they do not change what is learned.
_FREE = frozenset(
    {
        *("data", "features", "out", "work", "curves", "resume", "workers", "checkpoint_every"),
        *("init", "loggers", "clip.pixels", "clip.workers", "clip.max_pixels"),
        *("trainer.accelerator", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
        *("trainer.log_every_n_steps", "trainer.profiler"),
    }
)


def resumable_settings(settings: Train, encoder: EncoderIdentity, precision: str) -> dict[str, Any]:
    """The settings that an interrupted run must be resumed with, by key.

    Args:
        settings: See `training.config.Train`.
        encoder: Of the features or pixels.
        precision: What `train.precision` is on this machine. A run that goes on elsewhere with
            `auto` could compute in another one.
    """
    own = run_settings("train", settings, settings.data, _FREE)
    if settings.init is not None:
        own["SHA-256 of train.init"] = weights_sha256(checkpoint_folder(settings.init))
    return {**own, "train.precision": precision, "SHA-256 of the encoder": encoder.sha256}


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
    language_model = settings.gpt2.base or "GPT-2 from scratch"
    if settings.init is not None:
        language_model = "that of the captioner it started from"
    texts = {"text_noise": settings.text_noise} if settings.text_only else {}
    return {
        **texts,
        "data": dataset.description or dataset.root.name,
        "training_pictures": len(set(data.train.image_ids)),
        "training_captions": len(data.train),
        "encoder": config.features.clip,
        "language_model": language_model,
        "started_from": settings.init or "nothing",
        "objective": settings.objective,
        "tuning": settings.tuning,
        "clip_tuning": settings.clip.tuning,
        "epochs": trainer.current_epoch,
        "optimiser_steps": trainer.global_step,
        "batch_size": settings.batch_size,
        "batches_per_step": trainer.accumulate_grad_batches,
        "devices": trainer.world_size,
        "precision": str(trainer.precision),
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "schedule": settings.schedule,
        "warmup_ratio": settings.warmup_ratio,
        "ema": settings.ema,
        "word_dropout": settings.word_dropout,
        "label_smoothing": settings.label_smoothing,
        "pair_prior": ", ".join(settings.pair_prior) or "none",
        "turned": ", ".join("/".join(pair) for pair in settings.turned) or "none",
        "turned_weight": settings.turned_weight,
        "seed": settings.seed,
    }
