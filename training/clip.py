"""Contrastive training of CLIP on a caption data set, with caption and region losses beside it.

`python -m training.clip clip.data=DIR clip.out=DIR` trains a small CLIP from scratch, or fine-tunes
any Hugging Face CLIP when `clip.base` names one, all of it or with LoRA (`clip.tuning`). The
contrastive loss is CLIP's (arXiv 2103.00020, figure 3). Alone it tends to a bag of words: which
colour belongs to which thing gets lost, because telling captions of a batch apart seldom needs it.
The caption loss (as in CoCa, arXiv 2205.01917) runs ClipCap on the image feature, so that what a
caption says must be readable from it. Where the data set has boxes, the region loss (see
`training.contrastive.regions`) shows which patches to look at.

The result is a Hugging Face folder: `CLIPModel`, tokenizer, preprocessor and a README that says
how it was made and how well it retrieves.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

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
from training.captioner.resuming import check_resumable
from training.captioner.tokenizer import END, START, train_tokenizer
from training.captioner.tuning import check_clip, merged
from training.command import arguments, command
from training.config import Clip, load_config
from training.contrastive.captioned_pixels import CaptionedPixels, caption_tokens
from training.contrastive.module import ContrastiveModule
from training.contrastive.regions import RegionHead, RegionIndex
from training.data.dataset import CaptionDataset
from training.encoding.pixel_cache import cached_pixels

#: Optimiser steps between two checkpoints to resume from.
CHECKPOINT_EVERY = 200
#: Pictures of a data set are the user's own; this only stops a broken header.
MAX_PIXELS = 200_000_000


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
    tokenizer = PreTrainedTokenizerFast(
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


def main() -> None:
    """Train, keep the last checkpoint for resuming, and write the model with its provenance."""
    settings = load_config(arguments(__doc__).parse_args().overrides).clip
    _check(settings)
    pl.seed_everything(settings.seed, workers=True)
    dataset = CaptionDataset.load(settings.data)
    out = Path(settings.out)

    if settings.base is None:
        every = [text for i in dataset.ids("train") for text in dataset.captions[i]]
        clip, tokenizer, preprocessing = _from_scratch(settings, every)
    else:
        clip = load_clip(settings.base, CLIPModel)
        tokenizer = AutoTokenizer.from_pretrained(settings.base)
        preprocessing = read_preprocessing(settings.base)
    # At a few dozen tokens plain attention trains twice as fast on a CPU as the fused kernel.
    clip.set_attn_implementation("eager")
    length = clip.config.text_config.max_position_embeddings

    index = RegionIndex(dataset) if settings.region_weight > 0 else None

    rows = {}
    for split in ("train", "val", "test"):
        files = [dataset.files[i] for i in dataset.ids(split)]
        rows[split] = CaptionedPixels(
            cached_pixels(files, preprocessing, out / "cache", MAX_PIXELS, workers=2),
            caption_tokens(dataset, split, tokenizer, length),
            index.split(dataset.ids(split), preprocessing) if index else None,
        )
    loaders = {
        split: own.loader(settings.batch_size, shuffled=split == "train")
        for split, own in rows.items()
    }
    steps = len(loaders["train"]) * settings.epochs
    end = tokenizer.eos_token_id
    named = _tokens_of(index.attributes if index else [], tokenizer)
    head = _head(clip, index)
    prior = _prior(settings, rows["train"].texts, tokenizer)
    module = ContrastiveModule(clip, settings, preprocessing, end, steps, head, named, prior)
    if settings.compile:
        clip.vision_model.compile()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        precision=settings.precision,
        gradient_clip_val=1.0,
        default_root_dir=out,
        logger=pl.loggers.CSVLogger(out, name="log"),
        callbacks=[
            RichProgressBar(),
            ModelCheckpoint(
                out / "checkpoints", save_last=True, every_n_train_steps=CHECKPOINT_EVERY
            ),
        ],
    )
    last = out / "checkpoints" / "last.ckpt"
    resume = last if settings.resume and last.exists() else None
    if resume is not None:
        check_resumable(resume, module, "clip.resume")
    trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=resume)
    figures = trainer.validate(module, loaders["test"], verbose=False)[0]
    pictures = len(dataset.ids("train"))
    _save(merged(module.clip), tokenizer, preprocessing, settings, figures, pictures)


def _tokens_of(words: list[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that one of these words begins a text with or goes on with."""
    texts = [*words, *(f" {word}" for word in words)]
    found = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return sorted({token for ids in found for token in ids})


def _prior(settings: Clip, texts: Tensor, tokenizer: PreTrainedTokenizerBase) -> PairPrior | None:
    """What is not to be learned by heart from texts [N, C, L]."""
    words = settings.captioner.pair_prior
    if not words:
        return None

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    named = attribute_tokens(words, encode, "clip.captioner.pair_prior")
    return PairPrior(texts.flatten(), named, len(tokenizer))


def _check(settings: Clip) -> None:
    """Refuse empty batches, shares that are none, and what nothing learns from."""
    if settings.batch_size < 1:
        raise Refusal(f"clip.batch_size is {settings.batch_size}; it must be at least 1")
    check_clip(settings)
    dropout = settings.captioner.word_dropout
    for name, share in (("recolour", settings.recolour), ("captioner.word_dropout", dropout)):
        if not 0 <= share < 1:
            raise Refusal(f"clip.{name} is {share}; it must be at least 0 and less than 1")
    if settings.recolour > 0 and settings.region_weight <= 0:
        raise Refusal(
            f"clip.recolour is {settings.recolour}, but only the region loss learns from "
            "recoloured pictures; set clip.region_weight above 0 too"
        )
    if settings.captioner.pair_prior and settings.caption_weight <= 0:
        raise Refusal(
            "clip.captioner.pair_prior names words, but clip.caption_weight is "
            f"{settings.caption_weight}; set it above 0, or clip.captioner.pair_prior=[]"
        )


def _head(clip: CLIPModel, index: RegionIndex | None) -> RegionHead | None:
    """What names the boxes of this data set from this CLIP's patches."""
    if index is None:
        return None
    vision = clip.config.vision_config
    grid = vision.image_size // vision.patch_size
    width = clip.config.projection_dim
    return RegionHead(vision.hidden_size, width, grid, index.categories, len(index.attributes))


def _save(
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    preprocessing: Preprocessing,
    settings: Clip,
    figures: dict[str, float],
    pictures: int,
) -> None:
    """Write the folder aside, then put it in place."""
    clip.set_attn_implementation("sdpa")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(figures.items()))
    words = shlex.join(["python", "-m", "training.clip", *sys.argv[1:]])
    with whole_folder(Path(settings.out) / "model", "retrieval.json") as partial:
        clip.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_preprocessing(preprocessing, partial)
        (partial / "retrieval.json").write_text(json.dumps(figures, indent=2) + "\n")
        (partial / "README.md").write_text(
            f"# CLIP trained on {settings.data}\n\n"
            f"Command: `{words}`\n\n"
            f"Seed {settings.seed}, {pictures} training pictures, {settings.epochs} epochs, "
            f"base: {settings.base or 'none, from scratch'}, tuning: {settings.tuning}. "
            "On the data set's test split:\n\n"
            f"| measure | value |\n|---|---|\n{rows}\n"
        )


if __name__ == "__main__":
    command(main)
