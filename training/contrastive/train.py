"""Contrastive training of CLIP on a caption data set, with caption and region losses beside it.

The contrastive loss is CLIP's (arXiv 2103.00020, figure 3). With it alone an image feature tends to
become a bag of words: which colour belongs to which thing gets lost, because the captions of a
batch can seldom be confused for that reason. The caption loss (as in CoCa, arXiv 2205.01917) runs
ClipCap on the image feature, so that the words of a caption must be readable from it. Where the
data set has boxes, the region loss (see `training.contrastive.regions`) names what is in each.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from model.pretrained.hugging_face import load_clip
from model.pretrained.preprocessor_config import read_preprocessing
from model.refusal import Refusal
from training.captioner.objectives.pair_prior import PairPrior, attribute_tokens
from training.captioner.run.resuming import (
    LAST,
    RecordSettings,
    check_resumable,
    clear_for_new_run,
    mark_finished,
    run_settings,
)
from training.captioner.tuning import merged
from training.config import Clip, Loggers, load_config
from training.contrastive.batches import PlaceInEpoch
from training.contrastive.captioned_pixels import CaptionedPixels, caption_tokens
from training.contrastive.from_scratch import from_scratch
from training.contrastive.model_folder import save_model
from training.contrastive.module import ContrastiveModule
from training.contrastive.regions import RegionHead, RegionIndex
from training.contrastive.settings import check_clip
from training.data.dataset import CaptionDataset
from training.encoding.pixel_cache import cached_pixels
from training.loggers.packages import check_loggers
from training.loggers.recorder import RunRecorder
from training.precision import training_precision

#: Largest picture in pixels. The user's own pictures are trusted; this stops a damaged header.
MAX_PIXELS = 200_000_000
#: Settings that a resumed run may change, since they do not change what is learned.
_FREE = frozenset(
    {
        *("data", "out", "resume", "compile", "loggers", "checkpoint_every"),
        *("trainer.accelerator", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
        *("trainer.log_every_n_steps", "trainer.profiler"),
    }
)


def train_clip(settings: Clip, loggers: Loggers | None = None) -> None:
    """Train, keep the last checkpoint for resuming, and write the model folder.

    Args:
        settings: See `training.config.Clip`.
        loggers: How `clip.loggers` record; None for the defaults.

    Raises:
        Refusal: Settings and data do not fit each other, or the run to resume is another one.
    """
    check_clip(settings)
    loggers = loggers or load_config().loggers
    check_loggers(settings.loggers, loggers, "clip.loggers")
    pl.seed_everything(settings.seed, workers=True)
    dataset = CaptionDataset.load(settings.data)
    out = Path(settings.out)
    checkpoints = out / "checkpoints"
    last = checkpoints / LAST
    if settings.resume and not last.exists():
        raise Refusal(f"clip.resume is true but {last} does not exist; start without it")

    if settings.base is None:
        every = [text for i in dataset.ids("train") for text in dataset.captions[i]]
        clip, tokenizer, preprocessing = from_scratch(settings, every)
    else:
        clip = load_clip(settings.base, CLIPModel)
        tokenizer = AutoTokenizer.from_pretrained(settings.base)
        preprocessing = read_preprocessing(settings.base)
    # At a few dozen tokens plain attention trains twice as fast on a CPU as the fused kernel.
    clip.set_attn_implementation("eager")
    text: Any = clip.config.text_config

    index = RegionIndex(dataset) if settings.region_weight > 0 else None

    rows = {}
    for split in ("train", "val", "test"):
        files = [dataset.files[i] for i in dataset.ids(split)]
        rows[split] = CaptionedPixels(
            cached_pixels(files, preprocessing, out / "cache", MAX_PIXELS, workers=2),
            caption_tokens(dataset, split, tokenizer, text.max_position_embeddings),
            index.split(dataset.ids(split), preprocessing) if index else None,
        )
    end = tokenizer.eos_token_id
    attributes = _tokens_of(index.attributes if index else [], tokenizer)
    # Again, since only the first run decodes pictures, and that draws a random number.
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    head = _head(clip, index)
    prior = _prior(settings, rows["train"].texts, tokenizer)
    module = ContrastiveModule(clip, settings, preprocessing, end, head, attributes, prior)
    if settings.compile:
        clip.vision_model.compile()
    accelerator = str(settings.trainer.get("accelerator", "auto"))
    precision = training_precision(settings.precision, accelerator)
    # As it is on this processor: a run that goes on elsewhere with `auto` would compute otherwise.
    recorded = {
        **run_settings("clip", settings, settings.data, _FREE),
        "clip.precision": precision,
    }
    if settings.resume:
        check_resumable(last, module, recorded, "clip.resume")
    else:
        clear_for_new_run(checkpoints, "clip.resume")
    # Of Lightning: the run's ids, and a resumed run's checkpoint, are in the folder.
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    described = {"clip": dataclasses.asdict(settings), "loggers": dataclasses.asdict(loggers)}
    recorder = RunRecorder(described, loggers, settings.loggers, recorded)
    trainer = _trainer(settings, precision, recorded, recorder)
    loaders = {
        split: own.loader(
            settings.batch_size,
            split == "train",
            settings.seed,
            trainer.global_rank,
            trainer.world_size,
        )
        for split, own in rows.items()
    }
    trainer.callbacks.append(PlaceInEpoch(loaders["train"]))  # type: ignore[attr-defined]
    resumed = last if settings.resume else None
    trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=resumed)
    figures = dict(trainer.validate(module, loaders["test"], verbose=False)[0])
    if not trainer.is_global_zero:
        return  # the first of several processes saves the model
    pictures = len(dataset.ids("train"))
    save_model(merged(module.clip), tokenizer, preprocessing, settings, figures, pictures)
    recorder.finish(out / "model")
    if checkpoints.exists():  # a training of fewer than checkpoint_every steps writes none
        mark_finished(checkpoints)


def _trainer(
    settings: Clip, precision: str, recorded: dict[str, Any], recorder: RunRecorder
) -> pl.Trainer:
    """Lightning's trainer, which writes the checkpoint to resume from.

    Args:
        settings: See `training.config.Clip`.
        precision: One of Lightning's.
        recorded: The settings that are put into the checkpoints.
        recorder: Gives the loggers.
    """
    out = Path(settings.out)
    callbacks: list[pl.Callback] = [
        RecordSettings(recorded),
        recorder,
        ModelCheckpoint(
            out / "checkpoints",
            save_last=True,
            every_n_train_steps=settings.checkpoint_every,
            enable_version_counter=False,
        ),
    ]
    if settings.trainer.get("enable_progress_bar", True):
        callbacks.append(RichProgressBar())
    return pl.Trainer(
        **settings.trainer,
        max_epochs=settings.epochs,
        precision=cast(Any, precision),
        use_distributed_sampler=False,  # `SharedBatches` gives each process its part
        default_root_dir=out,
        logger=recorder.loggers(out, out / "checkpoints" / "run.json", settings.resume),
        callbacks=callbacks,
    )


def _tokens_of(words: list[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of these words, as the first word of a text and as a later one."""
    texts = [*words, *(f" {word}" for word in words)]
    found = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return sorted({token for ids in found for token in ids})


def _prior(settings: Clip, texts: Tensor, tokenizer: PreTrainedTokenizerBase) -> PairPrior | None:
    """The prior on pairs of words in texts [N, C, L], if `pair_prior` names words."""
    words = settings.captioner.pair_prior
    if not words:
        return None

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    attributes = attribute_tokens(words, encode, "clip.captioner.pair_prior")
    return PairPrior(texts.flatten(), attributes, len(tokenizer))


def _head(clip: CLIPModel, index: RegionIndex | None) -> RegionHead | None:
    """Layers that name the boxes of this data set from this CLIP's patches and feature."""
    if index is None:
        return None
    vision: Any = clip.config.vision_config
    grid = vision.image_size // vision.patch_size
    width = clip.visual_projection.out_features
    return RegionHead(vision.hidden_size, width, grid, index.categories, len(index.attributes))
