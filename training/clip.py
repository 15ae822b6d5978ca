"""Contrastive training of CLIP on a caption data set, with a caption loss beside it.

`python -m training.clip clip.data=DIR clip.out=DIR` trains a small CLIP from scratch, or fine-tunes
any Hugging Face CLIP when `clip.base` names one. The contrastive loss is CLIP's (arXiv 2103.00020,
figure 3). Alone it tends to a bag of words: which colour belongs to which thing gets lost, because
telling captions of a batch apart seldom needs it. The caption loss (as in CoCa, arXiv 2205.01917)
runs ClipCap on the image feature, so that what a caption says must be readable from it.

The result is a Hugging Face folder: `CLIPModel`, tokenizer, preprocessor and a README that says
how it was made and how well it retrieves.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    get_scheduler,
)

from model.captioner import IGNORED, ClipCap
from model.config import CaptionerConfig, MapperConfig
from model.image import Preprocessing
from training.command import arguments, command
from training.config import Clip, load_config
from training.dataset import CaptionDataset
from training.encoder import load_clip, read_preprocessing, write_preprocessing
from training.pixels import cached_pixels
from training.retrieval import recall_at
from training.tokenizer import END, START, train_tokenizer

#: Optimiser steps between two checkpoints to resume from.
CHECKPOINT_EVERY = 200
#: Pictures of a data set are the user's own; this only stops a broken header.
MAX_PIXELS = 200_000_000


class CaptionedPixels(torch.utils.data.Dataset):
    """Batches of (pixels uint8 [B, 3, S, S], token ids [B, C, L]) by a list of rows."""

    def __init__(self, pixels: np.ndarray, texts: Tensor) -> None:
        self.pixels = pixels
        self.texts = texts

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.texts)

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """The pictures of these rows and all their captions."""
        order = sorted(rows)
        return torch.from_numpy(self.pixels[order]), self.texts[order]


class ContrastiveModule(pl.LightningModule):
    """CLIP's two towers under the contrastive loss, and ClipCap on the image feature.

    Args:
        clip: The model to train.
        settings: See `training.config.Clip`.
        preprocessing: Normalisation of the pixels.
        end_token_id: Ends (and pads) the texts.
        steps: Optimiser steps in all, for the schedule.
    """

    def __init__(
        self,
        clip: CLIPModel,
        settings: Clip,
        preprocessing: Preprocessing,
        end_token_id: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.settings = settings
        self.end_token_id = end_token_id
        self.steps = steps
        self.size = preprocessing.size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.captioner: ClipCap | None = None
        if settings.caption_weight > 0:
            self.captioner = _captioner_for(clip, settings, preprocessing, end_token_id)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def image_features(self, pixels: Tensor) -> Tensor:
        """Features [B, D] of uint8 pixels [B, 3, S, S]."""
        normalised = (pixels.float() / 255 - self.mean) / self.std
        pooled = self.clip.vision_model(pixel_values=normalised).pooler_output
        return self.clip.visual_projection(pooled)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Features [B, D] of token ids [B, L], start and end tokens included."""
        tokens = tokens[:, : int((tokens != self.end_token_id).sum(1).max()) + 1]
        pooled = self.clip.text_model(input_ids=tokens).pooler_output
        return self.clip.text_projection(pooled)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Contrastive loss on one caption per picture, caption loss on another."""
        pixels, texts = batch
        count, captions, _ = texts.shape
        rows = torch.arange(count)
        features = self.image_features(self._shifted(pixels))
        chosen = texts[rows, torch.randint(captions, (count,))]
        similarity = (
            self.clip.logit_scale.exp().clamp(max=100)
            * F.normalize(features.float(), dim=-1)
            @ F.normalize(self.text_features(chosen).float(), dim=-1).T
        )
        contrastive = (F.cross_entropy(similarity, rows) + F.cross_entropy(similarity.T, rows)) / 2
        self.log("contrastive", contrastive, prog_bar=True)
        if self.captioner is None:
            return contrastive
        other = texts[rows, torch.randint(captions, (count,))][:, 1:]  # without the start token
        ends = (other == self.end_token_id).cumsum(1)
        labels = other.masked_fill(ends > 1, IGNORED)  # the first end token is learned
        labels = labels[:, : int((labels != IGNORED).sum(1).max())]
        caption = self.captioner(features, labels)
        self.log("caption", caption, prog_bar=True)
        return contrastive + self.settings.caption_weight * caption

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Collect features; retrieval needs the whole split."""
        pixels, texts = batch
        text = self.text_features(texts.flatten(0, 1))
        self.seen.append((self.image_features(pixels).float(), text.float()))

    def on_validation_epoch_end(self) -> None:
        """Log recall among the split's own pictures and captions."""
        images, texts = (
            F.normalize(torch.cat(part), dim=-1) for part in zip(*self.seen, strict=True)
        )
        self.seen.clear()
        owner = torch.arange(len(images)).repeat_interleave(len(texts) // len(images))
        figures = recall_at(images.cpu(), texts.cpu(), owner, (1, 5))
        self.log_dict(figures, prog_bar=True)

    def configure_optimizers(self) -> dict:
        """AdamW without decay on vectors, linear warm-up, cosine to zero."""
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate)
        schedule = get_scheduler(
            "cosine", optimizer, int(self.steps * self.settings.warmup_ratio), self.steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _shifted(self, pixels: Tensor) -> Tensor:
        """The whole batch moved by one random offset, edges repeated."""
        reach = self.settings.shift
        if reach == 0:
            return pixels
        padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate")
        top, left = torch.randint(2 * reach + 1, (2,)).tolist()
        return padded[:, :, top : top + self.size, left : left + self.size]


def _captioner_for(
    clip: CLIPModel, settings: Clip, preprocessing: Preprocessing, end_token_id: int
) -> ClipCap:
    """A small captioner from scratch that reads CLIP's features and writes CLIP's tokens."""
    sizes = settings.captioner
    config = CaptionerConfig(
        clip=None,
        gpt2={
            "vocab_size": clip.config.text_config.vocab_size,
            "n_positions": sizes.prefix_length + clip.config.text_config.max_position_embeddings,
            "n_embd": sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": end_token_id,
            "eos_token_id": end_token_id,
        },
        mapper=MapperConfig(kind="mlp", prefix_length=sizes.prefix_length),
        preprocessing=preprocessing,
        feature_width=clip.config.projection_dim,
        normalize_feature=False,
        end_token_id=end_token_id,
    )
    return ClipCap(config)


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


def _tokens(
    dataset: CaptionDataset, split: str, tokenizer: PreTrainedTokenizerBase, length: int
) -> Tensor:
    """Token ids [N, C, L] of a split; pictures with fewer captions repeat theirs."""
    per_image = max(len(dataset.captions[i]) for i in dataset.ids(split))
    texts = []
    for image_id in dataset.ids(split):
        own = dataset.captions[image_id]
        texts.extend(own[k % len(own)] for k in range(per_image))
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length)["input_ids"]
    table = torch.tensor(ids, dtype=torch.int16 if len(tokenizer) < 32768 else torch.int32)
    return table.view(-1, per_image, length)


def main() -> None:
    """Train, keep the last checkpoint for resuming, and write the model with its provenance."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, help="stop after this much training time")
    options = parser.parse_args()
    settings = load_config(options.overrides).clip
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

    def loader(split: str) -> DataLoader:
        files = [dataset.files[i] for i in dataset.ids(split)]
        pixels = cached_pixels(files, preprocessing, out / "cache", MAX_PIXELS, workers=2)
        rows = CaptionedPixels(pixels, _tokens(dataset, split, tokenizer, length).long())
        training = split == "train"
        order = RandomSampler(rows) if training else SequentialSampler(rows)
        size = min(settings.batch_size, len(rows))
        batches = BatchSampler(order, size, drop_last=training)
        return DataLoader(rows, sampler=batches, batch_size=None)

    loaders = {split: loader(split) for split in ("train", "val", "test")}
    steps = len(loaders["train"]) * settings.epochs
    end = tokenizer.eos_token_id
    module = ContrastiveModule(clip, settings, preprocessing, end, steps)
    if settings.compile:
        clip.vision_model.compile()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        precision=settings.precision,
        gradient_clip_val=1.0,
        default_root_dir=out,
        max_time={"seconds": int(options.seconds)} if options.seconds else None,
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
    trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=resume)
    figures = trainer.validate(module, loaders["test"], verbose=False)[0]
    _save(module.clip, tokenizer, preprocessing, settings, figures, len(dataset.ids("train")))


def _save(
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    preprocessing: Preprocessing,
    settings: Clip,
    figures: dict[str, float],
    pictures: int,
) -> None:
    """Write the folder aside, then put it in place."""
    target = Path(settings.out) / "model"
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    clip.set_attn_implementation("sdpa")
    clip.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    write_preprocessing(preprocessing, partial)
    (partial / "retrieval.json").write_text(json.dumps(figures, indent=2) + "\n")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(figures.items()))
    words = shlex.join(["python", "-m", "training.clip", *sys.argv[1:]])
    (partial / "README.md").write_text(
        f"# CLIP trained on {settings.data}\n\n"
        f"Command: `{words}`\n\n"
        f"Seed {settings.seed}, {pictures} training pictures, {settings.epochs} epochs, "
        f"base: {settings.base or 'none, from scratch'}. "
        "Retrieval on the data set's test split:\n\n"
        f"| measure | value |\n|---|---|\n{rows}\n"
    )
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


if __name__ == "__main__":
    command(main)
