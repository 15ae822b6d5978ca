"""Train a captioner on a data set: on cached features of its images, or on the images themselves.

`python -m training.train` learns the mapper (MLP or transformer, as in the paper, or one that reads
patches) and GPT-2
(from scratch, or a Hugging Face one fine-tuned, frozen or with LoRA), keeps the checkpoint with
the best validation CIDEr, and writes it as a checkpoint folder together with the encoder. That
is frozen, unless `train.clip.tuning` is full or lora: then CLIP learns from the caption loss too.
`train.resume=true` goes on where an interrupted run stopped.
"""

from __future__ import annotations

import logging
import shutil
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

from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.refusal import Refusal
from model.whole_folder import check_replaceable
from training.captioner.curves import write_curves
from training.captioner.data import CaptionDataModule, TokenizedCaptions
from training.captioner.images import split_images, statistics
from training.captioner.language_model import language_model
from training.captioner.mapper_settings import check_kinds, check_prefix
from training.captioner.module import CaptionerModule
from training.captioner.pair_prior import PairPrior, attribute_tokens
from training.captioner.resuming import check_resumable
from training.captioner.tokenizer import END
from training.captioner.tuning import check_tuning, merged
from training.command import arguments, command
from training.config import Config, Generation, Train, load_config
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder
from training.evaluation.scoring import cider


def train(config: Config) -> None:
    """Train as the settings say and write the checkpoint folder.

    Raises:
        Refusal: Settings, data and features do not fit each other.
    """
    settings = config.train
    for name in ("epochs", "batch_size"):
        if getattr(settings, name) < 1:
            raise Refusal(f"train.{name} is {getattr(settings, name)}; it must be at least 1")
    check_tuning(settings)
    check_kinds(config)
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(config.features.clip, config.features.kind)
    check_prefix(settings, encoder.identity)
    resume = Path(settings.work) / "last.ckpt"
    if settings.resume and not resume.exists():
        raise Refusal(f"train.resume is true but {resume} does not exist; start without it")
    if not settings.resume:
        check_replaceable(Path(settings.work), "last.ckpt", "best.ckpt", "log")

    tokenizer, gpt2 = language_model(settings, dataset)
    end_token_id = tokenizer.token_to_id(END)
    _check_room(config, gpt2["n_positions"] if isinstance(gpt2, dict) else gpt2.config.n_positions)
    images = {split: split_images(config, dataset, encoder, split) for split in ("train", "val")}
    # Only now, since decoding pictures, which the first run alone does, draws a random number.
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    captioner = ClipCap(_captioner_config(settings, encoder, gpt2, end_token_id))
    frozen = settings.clip.tuning == "frozen"
    # A frozen encoder, whose features are cached, joins again for the checkpoint folder.
    captioner.clip = None if frozen else encoder.model
    if isinstance(gpt2, GPT2LMHeadModel):
        captioner.gpt2.load_state_dict(gpt2.state_dict())

    data = CaptionDataModule(
        *(
            TokenizedCaptions(dataset, split, *own, tokenizer, end_token_id, settings.max_tokens)
            for split, own in images.items()
        ),
        settings.batch_size,
        settings.seed,
        settings.captions_together,
    )
    references = {image_id: dataset.captions[image_id] for image_id in data.val.image_ids}

    def val_cider(captions: Sequence[Sequence[int]]) -> float:
        texts = tokenizer.decode_batch([list(ids) for ids in captions])
        return cider(dict(zip(data.val.image_ids, texts, strict=True)), references)

    trainer, best = _trainer(settings)
    module = CaptionerModule(
        captioner,
        settings,
        steps=settings.epochs * -(-len(data.train) // settings.batch_size),
        val_images=data.val.image_parts,
        val_cider=val_cider,
        prior=_prior(settings, data.train, tokenizer),
    )
    if settings.resume:
        check_resumable(resume, module, "train.resume")
    trainer.fit(module, data, ckpt_path=resume if settings.resume else None)
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    seen = statistics(_features(module.eval(), data.train, trainer.strategy.root_device))
    captioner.gpt2 = merged(captioner.gpt2)
    captioner.clip = encoder.model if frozen else merged(captioner.clip)
    Checkpoint(
        captioner.eval(),
        tokenizer,
        _generation(config.generation),
        seen,
        training=_record(config, dataset, data, float(best.best_model_score)),
    ).save(settings.out)
    write_curves(Path(settings.work) / "log", Path(settings.curves))


def _prior(settings: Train, captions: TokenizedCaptions, tokenizer: Tokenizer) -> PairPrior | None:
    """What is not to be learned by heart from the training captions."""
    if not settings.pair_prior:
        return None

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    names = attribute_tokens(settings.pair_prior, encode, "train.pair_prior")
    return PairPrior(torch.from_numpy(captions.tokens), names, tokenizer.get_vocab_size())


def _check_room(config: Config, positions: int) -> None:
    """Refuse captions that the language model has no positions for."""
    prefix = config.train.mapper.prefix_length
    for name, tokens in (
        ("train.max_tokens", config.train.max_tokens),
        ("generation.max_tokens", config.generation.max_tokens),
    ):
        if prefix + tokens > positions:
            raise Refusal(
                f"{name} is {tokens} behind a prefix of {prefix}, but GPT-2 has {positions} "
                f"positions; set {name} to at most {positions - prefix}"
            )


def _captioner_config(
    settings: Train, encoder: Encoder, gpt2: GPT2LMHeadModel | dict[str, Any], end_token_id: int
) -> CaptionerConfig:
    """Everything that travels with the weights; the encoder joins after training."""
    return CaptionerConfig(
        clip=encoder.model.config,
        gpt2=gpt2 if isinstance(gpt2, dict) else gpt2.config.to_dict(),
        mapper=MapperConfig(**vars(settings.mapper)),
        preprocessing=encoder.preprocessing,
        feature_width=encoder.identity.shape[-1],
        normalize_feature=settings.normalize_feature,
        end_token_id=end_token_id,
    )


def _trainer(settings: Train) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's trainer, and the callback that knows the best checkpoint."""
    work = Path(settings.work)
    if not settings.resume:
        shutil.rmtree(work, ignore_errors=True)
    best = ModelCheckpoint(
        work, "best", monitor="val_CIDEr", mode="max", enable_version_counter=False
    )
    # Of its own: the callback above would write its last one only when it is also the best.
    last = ModelCheckpoint(work, "last", enable_version_counter=False)
    # Lightning suggests data workers; batches are slices of an array and need none.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        **settings.trainer,
        max_epochs=settings.epochs,
        logger=CSVLogger(work, name="log"),  # a resumed run gets its own version beside
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        callbacks=[RichProgressBar(), best, last],
        enable_model_summary=False,
    )
    return trainer, best


def _generation(settings: Generation) -> GenerationOptions:
    return GenerationOptions(**vars(settings))


@torch.no_grad()
def _features(
    module: CaptionerModule, captions: TokenizedCaptions, device: torch.device
) -> Iterator[np.ndarray]:
    """The features of the captions' images, a part at a time; leaves the module on the CPU."""
    module.to(device)
    for images in captions.image_parts():
        yield module.features(images.to(device)).cpu().numpy()
    module.cpu()


def _record(
    config: Config, dataset: CaptionDataset, data: CaptionDataModule, score: float
) -> dict[str, Any]:
    """What whoever gets the checkpoint wants to know of its training."""
    settings = config.train
    return {
        "data": dataset.description or dataset.root.name,
        "training_pictures": len(set(data.train.image_ids)),
        "training_captions": len(data.train),
        "encoder": config.features.clip,
        "language_model": settings.gpt2.base or "GPT-2 from scratch",
        "tuning": settings.tuning,
        "clip_tuning": settings.clip.tuning,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_ratio": settings.warmup_ratio,
        "word_dropout": settings.word_dropout,
        "pair_prior": ", ".join(settings.pair_prior) or "none",
        "seed": settings.seed,
        "validation_CIDEr": round(score, 4),
    }


def main() -> None:
    """Train with the settings of the command line."""
    train(load_config(arguments(__doc__).parse_args().overrides))


if __name__ == "__main__":
    command(main)
