"""Training of the captioner from settings to checkpoint folder; `training.train` is the command."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from model.checkpoint import CARD, Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.refusal import Refusal
from model.whole_folder import check_replaceable
from training.captioner.best_epoch import BestEpoch
from training.captioner.curves import write_curves
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.images import split_images, statistics
from training.captioner.language_model import language_model
from training.captioner.module import CaptionerModule
from training.captioner.pair_prior import PairPrior, attribute_tokens
from training.captioner.record import resumable_settings, training_record
from training.captioner.resuming import (
    LAST,
    RecordSettings,
    check_resumable,
    clear_for_new_run,
    mark_finished,
)
from training.captioner.settings import (
    check_kinds,
    check_positions,
    check_prefix,
    check_train,
)
from training.captioner.tokenizer import end_token
from training.captioner.tuning import merged
from training.captioner.turned_sentences import TurnedSentences
from training.config import Config, Generation, Train
from training.data.dataset import CaptionDataset
from training.data.seen_images import find_seen, save_seen
from training.encoding.encoder import Encoder
from training.evaluation.retrained_card import read_card, retrained
from training.evaluation.scoring import cider

#: Arguments of Lightning's Trainer that can end a training before its first validation.
_BEFORE_VALIDATION = (
    "max_steps",
    "max_time",
    "fast_dev_run",
    "limit_val_batches",
    "check_val_every_n_epoch",
    "val_check_interval",
)


def train(config: Config) -> None:
    """Train with these settings and write the checkpoint folder.

    Args:
        config: The blocks `features`, `train` and `generation` are read.

    Raises:
        Refusal: Settings, data and features do not fit each other.
    """
    settings = config.train
    check_train(settings)
    check_kinds(config)
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(config.features.clip, config.features.kind)
    check_prefix(settings, encoder.identity)
    work = Path(settings.work)
    resume = work / LAST
    if settings.resume and not resume.exists():
        raise Refusal(f"train.resume is true but {resume} does not exist; start without it")
    if not settings.resume:
        check_replaceable(work, LAST, "best.ckpt", "log")
    read_card(Path(settings.out) / CARD)  # a damaged one is refused before hours of training

    tokenizer, gpt2 = language_model(settings, dataset)
    end_token_id = end_token(tokenizer)
    positions = gpt2["n_positions"] if isinstance(gpt2, dict) else gpt2.config.n_positions
    check_positions(config, positions)
    images = {split: split_images(config, dataset, encoder, split) for split in ("train", "val")}
    # After the pictures are decoded, because only the first run does that, and it draws a random
    # number.
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    captioner = ClipCap(_captioner_config(settings, encoder, gpt2, end_token_id))
    frozen = settings.clip.tuning == "frozen"
    # Features of a frozen encoder are cached; it is added again for the checkpoint folder.
    captioner.clip = None if frozen else encoder.model
    if isinstance(gpt2, GPT2LMHeadModel):
        captioner.gpt2.load_state_dict(gpt2.state_dict())

    captions = {
        split: TokenizedCaptions(dataset, split, *own, tokenizer, end_token_id, settings.max_tokens)
        for split, own in images.items()
    }
    data = CaptionDataModule(
        captions["train"],
        captions["val"],
        settings.batch_size,
        settings.seed,
        settings.captions_together,
    )
    seen = find_seen(dataset, {"train": data.train.image_ids, "val": data.val.image_ids})
    references = {image_id: dataset.captions[image_id] for image_id in data.val.image_ids}

    def val_cider(captions: Sequence[Sequence[int]]) -> float:
        texts = tokenizer.decode_batch([list(ids) for ids in captions])
        return cider(dict(zip(data.val.image_ids, texts, strict=True)), references)

    recorded = resumable_settings(settings, encoder.identity)
    trainer, best = _trainer(settings, _monitor(len(data.val.image_ids)), recorded)
    module = CaptionerModule(
        captioner,
        settings,
        val_images=data.val.image_parts,
        val_cider=val_cider,
        prior=_prior(settings, data.train, tokenizer),
        turned=_turned(settings, data.train, tokenizer),
    )
    if settings.resume:
        check_resumable(resume, module, recorded, "train.resume")
    trainer.fit(module, data, ckpt_path=resume if settings.resume else None)
    if best.best_model_score is None:
        names = [f"train.trainer.{name}" for name in _BEFORE_VALIDATION if name in settings.trainer]
        raise Refusal(
            f"training stopped after {trainer.global_step} steps, before the first validation, so "
            f"there is no checkpoint to keep; change or leave out "
            + (" and ".join(names) or "what ends it in train.trainer")
        )
    if not trainer.is_global_zero:
        return  # the first of several processes saves the captioner
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    features = _features(module.eval(), data.train, trainer.strategy.root_device)
    feature_statistics = statistics(features)
    captioner.gpt2 = merged(captioner.gpt2)
    captioner.clip = merged(captioner.clip or encoder.model)
    record = {
        **training_record(config, dataset, data, trainer),
        str(best.monitor).replace("val", "validation"): round(float(best.best_model_score), 4),
    }
    card = read_card(Path(settings.out) / CARD)
    Checkpoint(
        captioner.eval(),
        tokenizer,
        _generation(config.generation),
        feature_statistics,
        card=None if card is None else retrained(card, captioner.config.mapper, record),
        training=record,
    ).save(settings.out)
    save_seen(settings.out, seen)
    write_curves(work / "log", Path(settings.curves))
    mark_finished(work)


def _prior(settings: Train, captions: TokenizedCaptions, tokenizer: Tokenizer) -> PairPrior | None:
    """The prior on pairs of words of the training captions, if `train.pair_prior` names words."""
    if not settings.pair_prior:
        return None

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    names = attribute_tokens(settings.pair_prior, encode, "train.pair_prior")
    return PairPrior(torch.from_numpy(captions.tokens), names, tokenizer.get_vocab_size())


def _turned(
    settings: Train, captions: TokenizedCaptions, tokenizer: Tokenizer
) -> TurnedSentences | None:
    """The loss on turned sentences, if `train.turned` names phrases."""
    if not settings.turned:
        return None

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    turned = TurnedSentences(settings.turned, encode, tokenizer.get_vocab_size())
    turned.fit(captions.label_parts())
    return turned


def _captioner_config(
    settings: Train, encoder: Encoder, gpt2: GPT2LMHeadModel | dict[str, Any], end_token_id: int
) -> CaptionerConfig:
    """The config that is saved with the weights."""
    return CaptionerConfig(
        clip=encoder.model.config,
        gpt2=gpt2 if isinstance(gpt2, dict) else gpt2.config.to_dict(),
        mapper=MapperConfig(**vars(settings.mapper)),
        preprocessing=encoder.preprocessing,
        feature_width=encoder.identity.shape[-1],
        normalize_feature=settings.normalize_feature,
        end_token_id=end_token_id,
    )


def _monitor(val_images: int) -> tuple[str, str]:
    """The value that decides which epoch is the best, and whether it is `min` or `max`.

    CIDEr weighs a word by how few images have it, so that of a single image it is always 0.
    """
    if val_images > 1:
        return "val_CIDEr", "max"
    print(
        "note: with one validation picture CIDEr is always 0; the epoch with the least validation "
        "loss is kept",
        file=sys.stderr,
    )
    return "val_loss", "min"


def _trainer(
    settings: Train, monitor: tuple[str, str], recorded: dict[str, Any]
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's trainer, and the callback that keeps the best epoch.

    Args:
        settings: See `training.config.Train`.
        monitor: As from `_monitor`.
        recorded: The settings that are put into the checkpoints.
    """
    work = Path(settings.work)
    if not settings.resume:
        clear_for_new_run(work, "train.resume")
    name, mode = monitor
    best = BestEpoch(work, "best", monitor=name, mode=mode, enable_version_counter=False)
    # A second callback, because the first writes its last checkpoint only when it is the best too.
    last = ModelCheckpoint(work, "last", enable_version_counter=False)
    # Lightning recommends data workers; these batches are slices of an array and need none.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    defaults = {"log_every_n_steps": 10, "num_sanity_val_steps": 0, "enable_model_summary": False}
    trainer = pl.Trainer(
        **{**defaults, **settings.trainer},
        max_epochs=settings.epochs,
        logger=CSVLogger(work, name="log"),  # a resumed run writes its own version beside
        callbacks=[RichProgressBar(), RecordSettings(recorded), best, last],
    )
    return trainer, best


def _generation(settings: Generation) -> GenerationOptions:
    return GenerationOptions(**vars(settings))


@torch.no_grad()
def _features(
    module: CaptionerModule, captions: TokenizedCaptions, device: torch.device
) -> Iterator[np.ndarray]:
    """The features of the captions' images, a part at a time; the module ends on the CPU."""
    module.to(device)
    for images in captions.image_parts():
        yield module.features(images.to(device)).cpu().numpy()
    module.cpu()
