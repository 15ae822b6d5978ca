"""Contrastive training of CLIP on a caption data set, with caption and region losses beside it.

The contrastive loss is CLIP's (arXiv 2103.00020, figure 3). With it alone an image feature tends to
become a bag of words: which colour belongs to which thing gets lost, because the captions of a
batch can seldom be confused for that reason. The caption loss (as in CoCa, arXiv 2205.01917) runs
ClipCap on the image feature, so that the words of a caption must be readable from it. Where the
data set has boxes, the region loss (see `training.contrastive.regions`) names what is in each.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from model.image.preprocessing import Preprocessing
from model.pretrained.hugging_face import load_clip
from model.pretrained.preprocessor_config import read_preprocessing, write_preprocessing
from model.refusal import Refusal
from model.whole_folder import whole_folder
from training.captioner.pair_prior import PairPrior, attribute_tokens
from training.captioner.resuming import (
    LAST,
    RecordSettings,
    check_resumable,
    clear_for_new_run,
    mark_finished,
    run_settings,
)
from training.captioner.tokenizer import END, START, train_tokenizer
from training.captioner.tuning import merged
from training.config import Clip, Loggers, load_config
from training.contrastive.captioned_pixels import CaptionedPixels, caption_tokens
from training.contrastive.module import ContrastiveModule
from training.contrastive.precision import training_precision
from training.contrastive.regions import RegionHead, RegionIndex
from training.contrastive.settings import check_clip
from training.data.dataset import CaptionDataset
from training.encoding.pixel_cache import cached_pixels
from training.evaluation.marked_block import replaced_block
from training.loggers.packages import check_loggers
from training.loggers.recorder import RunRecorder

#: Optimiser steps between two checkpoints to resume from.
CHECKPOINT_EVERY = 200
#: Largest picture in pixels. The user's own pictures are trusted; this stops a damaged header.
MAX_PIXELS = 200_000_000
#: Settings that a resumed run may change, since they do not change what is learned.
_FREE = frozenset({"data", "out", "resume", "compile", "loggers"})


def _from_scratch(
    settings: Clip, captions: list[str]
) -> tuple[CLIPModel, PreTrainedTokenizerBase, Preprocessing]:
    """A small random CLIP, and a tokenizer learned from the captions."""
    sizes = settings.model
    bpe = train_tokenizer(captions, sizes.vocabulary, (END, START))
    end, start = bpe.token_to_id(END), bpe.token_to_id(START)
    bpe.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=sizes.max_text,
    )
    vision = {
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch,
        "projection_dim": sizes.projection,
    }
    text = {
        "hidden_size": sizes.text_width,
        "intermediate_size": 4 * sizes.text_width,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": max(1, sizes.text_width // 32),
        "projection_dim": sizes.projection,
        "vocab_size": bpe.get_vocab_size(),
        "max_position_embeddings": sizes.max_text,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    clip = CLIPModel(
        CLIPConfig(vision_config=vision, text_config=text, projection_dim=sizes.projection)
    )
    half = (0.5, 0.5, 0.5)
    return clip, tokenizer, Preprocessing(size=sizes.image_size, mean=half, std=half)


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
        clip, tokenizer, preprocessing = _from_scratch(settings, every)
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
    loaders = {
        split: own.loader(settings.batch_size, shuffled=split == "train")
        for split, own in rows.items()
    }
    end = tokenizer.eos_token_id
    attributes = _tokens_of(index.attributes if index else [], tokenizer)
    head = _head(clip, index)
    prior = _prior(settings, rows["train"].texts, tokenizer)
    module = ContrastiveModule(clip, settings, preprocessing, end, head, attributes, prior)
    if settings.compile:
        clip.vision_model.compile()
    precision = training_precision(settings.precision)
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
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        precision=cast(Any, precision),
        deterministic=True,
        gradient_clip_val=1.0,
        default_root_dir=out,
        logger=recorder.loggers(out, checkpoints / "run.json", settings.resume),
        callbacks=[
            RichProgressBar(),
            RecordSettings(recorded),
            recorder,
            ModelCheckpoint(
                checkpoints,
                save_last=True,
                every_n_train_steps=CHECKPOINT_EVERY,
                enable_version_counter=False,
            ),
        ],
    )
    resumed = last if settings.resume else None
    trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=resumed)
    figures = dict(trainer.validate(module, loaders["test"], verbose=False)[0])
    pictures = len(dataset.ids("train"))
    _save(merged(module.clip), tokenizer, preprocessing, settings, figures, pictures)
    recorder.finish(out / "model")
    if checkpoints.exists():  # a training of fewer than CHECKPOINT_EVERY steps writes none
        mark_finished(checkpoints)


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


def _save(
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
