"""Train a captioner on the cached features of a data set.

`python -m training.train` learns the mapper (MLP or transformer, as in the paper) and GPT-2
(from scratch, or a Hugging Face one fine-tuned, frozen or with LoRA), keeps the checkpoint with
the best validation CIDEr, and writes it as a checkpoint folder together with the encoder.
`train.resume=true` goes on where an interrupted run stopped.
"""

from __future__ import annotations

import csv
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from model.captioner import ClipCap
from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.hugging_face import load_gpt2_tokenizer
from model.options import GenerationOptions
from model.refusal import Refusal
from training.caption_data import CaptionDataModule, TokenizedCaptions
from training.captioner_module import CaptionerModule
from training.command import arguments, command
from training.config import Config, Generation, Train, load_config
from training.dataset import CaptionDataset
from training.feature_file import FeatureFile
from training.features import Encoder
from training.scoring import cider
from training.tokenizer import END, train_tokenizer
from training.tuning import check_tuning, merged


def train(config: Config) -> None:
    """Train as the settings say and write the checkpoint folder.

    Raises:
        Refusal: Settings, data and features do not fit each other.
    """
    settings = config.train
    check_tuning(settings)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    dataset = CaptionDataset.load(settings.data)
    encoder = Encoder(config.features.clip)
    features = FeatureFile(settings.features, encoder.identity)

    tokenizer, gpt2 = _language_model(settings, dataset)
    end_token_id = tokenizer.token_to_id(END)
    _check_room(config, gpt2["n_positions"] if isinstance(gpt2, dict) else gpt2.config.n_positions)
    captioner = ClipCap(_captioner_config(settings, encoder, gpt2, end_token_id))
    captioner.clip = None  # features are cached; the encoder joins again for the checkpoint folder
    if isinstance(gpt2, GPT2LMHeadModel):
        captioner.gpt2.load_state_dict(gpt2.state_dict())

    data = CaptionDataModule(
        *(
            TokenizedCaptions(
                dataset, split, features, tokenizer, end_token_id, settings.max_tokens
            )
            for split in ("train", "val")
        ),
        settings.batch_size,
        settings.seed,
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
        val_features=torch.from_numpy(features.features[data.val.feature_rows]),
        val_cider=val_cider,
    )
    resume = Path(settings.work) / "last.ckpt"
    if settings.resume and not resume.exists():
        raise Refusal(f"train.resume is true but {resume} does not exist; start without it")
    trainer.fit(module, data, ckpt_path=resume if settings.resume else None)
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    captioner.gpt2 = merged(captioner.gpt2)
    captioner.clip = encoder.model
    Checkpoint(
        captioner.eval(),
        tokenizer,
        _generation(config.generation),
        _statistics(features, data.train),
    ).save(settings.out)
    write_curves(Path(settings.work) / "log", Path(settings.curves))


def write_curves(logs: Path, folder: Path) -> None:
    """Lightning's logs as two tables that can be plotted: losses by step, scores by epoch.

    A run that was interrupted and resumed has one log for each part; where a later part did a
    step again, it counts.
    """
    rows: list[dict[str, str]] = []
    for log in sorted(logs.glob("version_*/metrics.csv"), key=lambda f: int(f.parent.name[8:])):
        with log.open(newline="") as file:
            part = list(csv.DictReader(file))
        begin = min((int(row["step"]) for row in part), default=0)
        rows = [row for row in rows if int(row["step"]) < begin] + part
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in (
        ("loss", ("step", "train_loss")),
        ("validation", ("epoch", "val_loss", "val_CIDEr")),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(columns)
            kept = (row for row in rows if row.get(columns[-1]))
            table.writerows([row[column] for column in columns] for row in kept)


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


def _language_model(
    settings: Train, dataset: CaptionDataset
) -> tuple[Tokenizer, GPT2LMHeadModel | dict[str, Any]]:
    """The tokenizer, and a trained GPT-2 or the config of one from scratch."""
    sizes = settings.gpt2
    if sizes.base is not None:
        tokenizer = load_gpt2_tokenizer(sizes.base)
        try:
            gpt2 = GPT2LMHeadModel.from_pretrained(sizes.base, dtype="float32")
        except (OSError, ValueError) as error:
            raise Refusal(
                f"no GPT-2 at {sizes.base!r}: {str(error).strip().splitlines()[0]} Give a folder "
                "made by save_pretrained, or a Hugging Face name with the network up."
            ) from error
        size = tokenizer.get_vocab_size()
        if size > gpt2.config.vocab_size:
            raise Refusal(
                f"{sizes.base!r} has no tokenizer that fits: it knows {size} tokens, its GPT-2 "
                f"{gpt2.config.vocab_size}"
            )
        if tokenizer.token_to_id(END) is None:
            raise Refusal(
                f"the tokenizer of {sizes.base!r} has no token {END}; a captioner needs it to end"
            )
        return tokenizer, gpt2
    texts = (text for i in dataset.ids("train") for text in dataset.captions[i])
    tokenizer = train_tokenizer(texts, sizes.vocabulary)
    end = tokenizer.token_to_id(END)
    return tokenizer, {
        "vocab_size": tokenizer.get_vocab_size(),
        "n_positions": 128,
        "n_embd": sizes.width,
        "n_layer": sizes.layers,
        "n_head": sizes.heads,
        "resid_pdrop": sizes.dropout,
        "embd_pdrop": sizes.dropout,
        "attn_pdrop": sizes.dropout,
        "bos_token_id": end,
        "eos_token_id": end,
    }


def _captioner_config(
    settings: Train, encoder: Encoder, gpt2: GPT2LMHeadModel | dict[str, Any], end_token_id: int
) -> CaptionerConfig:
    """Everything that travels with the weights; the encoder joins after training."""
    return CaptionerConfig(
        clip=encoder.model.config.to_dict(),
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


def _statistics(features: FeatureFile, captions: TokenizedCaptions) -> dict[str, Any]:
    """Mean and spread of the training images' features: what a server's inputs should look like."""
    mean, std = features.features.moments(captions.feature_rows)
    return {
        "count": len(captions.feature_rows),
        "mean": [round(float(x), 6) for x in mean],
        "std": [round(float(x), 6) for x in std],
    }


def main() -> None:
    """Train with the settings of the command line."""
    train(load_config(arguments(__doc__).parse_args().overrides))


if __name__ == "__main__":
    command(main)
