"""Training of the captioner from settings to checkpoint folder; `training.train` is the command."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from model.checkpoint import CARD, Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.network.captioner import ClipCap
from model.network.drafts import count_drafts
from model.options import GenerationOptions
from model.refusal import Refusal
from model.whole_folder import check_replaceable
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.images import split_images, statistics
from training.captioner.language_model import language_model
from training.captioner.module import CaptionerModule
from training.captioner.objectives.pair_prior import PairPrior, attribute_tokens
from training.captioner.objectives.self_critical import ImageDataModule, SelfCriticalModule
from training.captioner.objectives.turned_sentences import TurnedSentences
from training.captioner.run.curves import write_curves
from training.captioner.run.record import resumable_settings, training_record
from training.captioner.run.resuming import (
    LAST,
    check_resumable,
    mark_finished,
)
from training.captioner.run.start import check_start, note_other_encoder, started_from
from training.captioner.run.trainer import make_trainer, monitored
from training.captioner.settings import (
    check_kinds,
    check_positions,
    check_prefix,
    check_text_only,
    check_train,
)
from training.captioner.tokenizer import end_token
from training.captioner.tuning import merged
from training.config import Config, Generation, Train
from training.data.dataset import CaptionDataset
from training.data.seen_images import find_seen, save_seen
from training.encoding.encoder import Encoder
from training.evaluation.report.retrained_card import read_card, retrained
from training.evaluation.scores.scoring import cider
from training.loggers.packages import check_loggers
from training.loggers.recorder import RunRecorder
from training.loggers.samples import read_samples
from training.precision import training_precision

#: Arguments of Lightning's Trainer that can end a training before its first validation.
_BEFORE_VALIDATION = (
    "max_steps",
    "max_time",
    "fast_dev_run",
    "limit_val_batches",
    "check_val_every_n_epoch",
    "val_check_interval",
)


def train(config: Config, callbacks: Sequence[pl.Callback] = ()) -> None:
    """Train with these settings and write the checkpoint folder.

    Args:
        config: The blocks `features`, `train`, `loggers` and `generation` are read.
        callbacks: More callbacks of Lightning's trainer.

    Raises:
        Refusal: Settings, data and features do not fit each other.
    """
    check_train(config.train)
    config, start = started_from(config)
    settings = config.train
    check_kinds(config)
    check_text_only(config)
    check_loggers(settings.loggers, config.loggers, "train.loggers")
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(config.features.clip, config.features.kind)
    if start is not None and settings.init is not None:
        check_start(settings.init, start.captioner.config, encoder)
        note_other_encoder(start, settings.init, encoder)
    check_prefix(settings, encoder.identity)
    work = Path(settings.work)
    resume = work / LAST
    if settings.resume and not resume.exists():
        raise Refusal(f"train.resume is true but {resume} does not exist; start without it")
    if not settings.resume:
        # Only the first of several processes, which clears the folder for all.
        rank_zero_only(check_replaceable)(work, LAST, "best.ckpt", "log")
    read_card(Path(settings.out) / CARD)  # a damaged one is refused before hours of training

    gpt2: GPT2LMHeadModel | dict[str, Any]
    if start is None:
        tokenizer, gpt2 = language_model(settings, dataset)
        end_token_id = end_token(tokenizer, settings.gpt2.end_token)
    else:
        tokenizer, gpt2 = start.tokenizer, start.captioner.gpt2
        end_token_id = start.captioner.config.end_token_id
    positions = gpt2["n_positions"] if isinstance(gpt2, dict) else gpt2.config.n_positions
    check_positions(config, positions)
    images = {split: split_images(config, dataset, encoder, split) for split in ("train", "val")}
    # After the pictures are decoded, because only the first run does that, and it draws a random
    # number.
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    sizes = gpt2 if isinstance(gpt2, dict) else gpt2.config.to_dict()
    if start is not None:
        sizes = start.captioner.config.gpt2
    described = _captioner_config(settings, encoder, sizes, end_token_id)
    if start is not None:  # a full stop that ends captions stays part of them
        is_text = start.captioner.config.end_token_is_text
        described = dataclasses.replace(described, end_token_is_text=is_text)
    captioner = ClipCap(described)
    frozen = settings.clip.tuning == "frozen"
    # Features of a frozen encoder are cached; it is added again for the checkpoint folder.
    captioner.clip = None if frozen else encoder.model
    if isinstance(gpt2, GPT2LMHeadModel):
        captioner.gpt2.load_state_dict(gpt2.state_dict())
    if start is not None:
        captioner.mapper.load_state_dict(start.captioner.mapper.state_dict())

    captions = {
        split: TokenizedCaptions(dataset, split, *own, tokenizer, end_token_id, settings.max_tokens)
        for split, own in images.items()
    }
    if settings.text_only:
        for own in captions.values():
            own.own_images()
    self_critical = settings.objective == "self_critical"
    of_images = ImageDataModule if self_critical else CaptionDataModule
    data = of_images(captions["train"], captions["val"], settings)
    seen = find_seen(dataset, {"train": data.train.image_ids, "val": data.val.image_ids})
    references = {image_id: dataset.captions[image_id] for image_id in data.val.image_ids}

    def decode(captions: Sequence[Sequence[int]]) -> list[str]:
        return tokenizer.decode_batch([list(ids) for ids in captions])

    def val_cider(captions: Sequence[Sequence[int]]) -> float:
        recorder.captions = dict(zip(data.val.image_ids, decode(captions), strict=True))
        return cider(recorder.captions, references)

    precision = training_precision(settings.precision, settings.trainer.get("accelerator", "auto"))
    recorded = resumable_settings(settings, encoder.identity, precision)
    shown = config.loggers.pictures if settings.loggers else 0
    samples = read_samples(dataset, data.val.image_ids, shown, config.features.max_pixels)
    recorder = RunRecorder(
        dataclasses.asdict(config), config.loggers, settings.loggers, recorded, samples
    )
    monitor = monitored(len(data.val.image_ids))
    trainer, best = make_trainer(settings, monitor, recorded, recorder, callbacks)
    module: CaptionerModule
    if self_critical:
        module = SelfCriticalModule(
            captioner,
            settings,
            val_images=data.val.image_parts,
            val_cider=val_cider,
            references=[dataset.captions[image_id] for image_id in data.train.image_ids],
            decode=decode,
        )
    else:
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
    print(f"note: {best.said(settings.epochs)}", file=sys.stderr)
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    features = _features(module.eval(), data.train, trainer.strategy.root_device)
    # Those of texts say nothing about the images that a server is given.
    feature_statistics = None if settings.text_only else statistics(features)
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
        drafts=count_drafts(data.train.tokens, end_token_id, captioner.gpt2.config.vocab_size),
    ).save(settings.out)
    save_seen(settings.out, seen)
    write_curves(work / "log", Path(settings.curves))
    recorder.finish(Path(settings.out))
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
    settings: Train, encoder: Encoder, gpt2: dict[str, Any], end_token_id: int
) -> CaptionerConfig:
    """The config that is saved with the weights."""
    return CaptionerConfig(
        clip=encoder.model.config,
        gpt2=gpt2,
        mapper=MapperConfig(**vars(settings.mapper)),
        preprocessing=encoder.preprocessing,
        feature_width=encoder.identity.shape[-1],
        normalize_feature=settings.normalize_feature,
        end_token_id=end_token_id,
    )


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
