"""Settings of the pipeline: a typed schema over `conf/config.yaml`, composed by Hydra.

The YAML file holds the values, and DVC reads it too for its `params`. This file holds the types,
the limits (see `training.limits`) and the meaning of each setting. It imports no torch, so that a
command can report a wrong setting before it imports what takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from model.options import GenerationOptions
from model.refusal import Refusal
from training.limits import Choice, Range, check_limits
from training.sources.settings import Coco, Folder, Scenes, WebDataset

Positive = Annotated[int, Range(1)]
NotNegative = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, below=1)]
Weight = Annotated[float, Range(0)]
Rate = Annotated[float, Range(above=0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclasses.dataclass
class Prepare:
    """Which `source` the data set is made from: `scenes`, `folder`, `webdataset` or `coco`."""

    source: str


@dataclasses.dataclass
class ClipSizes:
    """Sizes of a CLIP that is trained from scratch (`clip.base` is null)."""

    width: Positive
    layers: Positive
    heads: Positive
    patch: Positive
    image_size: Positive
    text_layers: Positive
    text_width: Positive
    max_text: Positive
    projection: Positive
    vocabulary: Positive


@dataclasses.dataclass
class ClipCaptioner:
    """The captioner whose loss trains CLIP beside the contrastive one.

    `word_dropout` and `pair_prior` as for `Train`.
    """

    prefix_length: Positive
    width: Positive
    layers: Positive
    heads: Positive
    word_dropout: Fraction
    pair_prior: list[str]


@dataclasses.dataclass
class Lora:
    """Rank of the matrices beside the weights, their scale alpha / rank, and their dropout."""

    rank: Annotated[int, Range(1, usual="usually 4 to 64")]
    alpha: Annotated[float, Range(above=0, usual="usually rank or twice that")]
    dropout: Fraction


@dataclasses.dataclass
class Clip:
    """Contrastive training of CLIP on a caption data set.

    `base` is a Hugging Face name or folder to fine-tune, null to train the sizes of `model` from
    scratch. `tuning` of the base is `full`, or `lora` with the settings of that name.
    `caption_weight` and `region_weight` are the weights of the losses beside the contrastive one; 0
    leaves a loss out. The region loss needs boxes in the data set. `shift` is the largest random
    shift of a batch, in pixels. `recolour` is the share of a batch whose things get other colours
    (see `training.contrastive.repainting`). `mirror` is the share whose left and right are
    exchanged, for the region loss only: captions may say "left". `resume` continues an interrupted
    run, with the settings that it was started with. `precision` is one of Lightning's, or `auto`,
    which is `bf16-mixed` where the processor multiplies bfloat16 itself, else `32-true`.
    """

    base: str | None
    data: str
    out: str
    tuning: Annotated[str, Choice("full", "lora")]
    lora: Lora
    model: ClipSizes
    caption_weight: Weight
    region_weight: Weight
    captioner: ClipCaptioner
    epochs: NotNegative
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Weight
    warmup_ratio: Annotated[float, Range(0, 1)]
    shift: NotNegative
    recolour: Fraction
    mirror: Fraction
    seed: Seed
    precision: Annotated[str, Choice("auto", "32-true", "bf16-mixed")]
    compile: bool
    resume: bool


@dataclasses.dataclass
class Features:
    """Encoding of every image; `on_broken` is `stop` or `skip`.

    `clip` is the encoder (see `model.pretrained.encoder_folder`); `kind` is `pooled` for one
    feature of an image, or `patches` for one of each patch, which `train.mapper.kind=patch` reads.
    `shard_batches` batches make one shard of the feature file. A run that is killed loses at most
    the work on one shard.
    """

    data: str
    clip: str
    kind: Annotated[str, Choice("pooled", "patches")]
    out: str
    batch_size: Positive
    shard_batches: Positive
    workers: NotNegative
    on_broken: Annotated[str, Choice("stop", "skip")]
    max_pixels: Positive


@dataclasses.dataclass
class Mapper:
    """See `model.config.MapperConfig`."""

    kind: Annotated[str, Choice("mlp", "transformer", "linear", "patch")]
    prefix_length: Positive
    clip_length: Positive
    layers: Positive
    heads: Positive


@dataclasses.dataclass
class Gpt2:
    """`base` is a Hugging Face name or folder, null for a GPT-2 of these sizes from scratch."""

    base: str | None
    layers: Positive
    width: Positive
    heads: Positive
    vocabulary: Positive
    dropout: Fraction


@dataclasses.dataclass
class TrainClip:
    """Training of CLIP by the caption loss.

    `tuning` is `frozen` (training reads cached features), `full`, or `lora` with the settings of
    that name. With `full` and `lora` training reads pixels: `workers` processes decode the
    pictures, of at most `max_pixels` each, into the folder `pixels` (see
    `training.encoding.pixel_cache`), once for all runs.
    """

    tuning: Annotated[str, Choice("full", "frozen", "lora")]
    learning_rate: Annotated[float, Range(above=0, usual="usually 1e-5")]
    lora: Lora
    pixels: str
    workers: NotNegative
    max_pixels: Positive


@dataclasses.dataclass
class Train:
    """Training of the captioner; `trainer` has arguments of Lightning's Trainer.

    `features` is the feature file that is read if CLIP is frozen (see `TrainClip`).
    `tuning` of GPT-2 is `full`, `frozen`, or `lora` with the settings of that name.
    `captions_together` captions of an image are put into the same batch, and GPT-2 reads their
    prefix once: faster with a long prefix, but a batch has fewer images.
    `word_dropout` is the share of the input words that are blanked (see `ClipCap.forward`).
    `pair_prior` lists words, such as colours. The captioner does not learn how often they occur
    together with the word after them (see `training.captioner.pair_prior`).
    `turned` lists pairs of phrases such as "left of" and "right of". Of a sentence and the one with
    the other phrase the captioner learns which is true, by a loss of weight `turned_weight` (see
    `training.captioner.turned_sentences`).
    `work` is the folder of the checkpoints to resume from. `curves` is the folder of the CSV tables
    of losses and validation scores. `resume` continues an interrupted run, with the settings that
    it was started with; `epochs` too, because the learning rate falls to zero over all epochs.
    Without it a new run moves the checkpoints of an interrupted one aside.
    """

    data: str
    features: str
    out: str
    work: str
    curves: str
    mapper: Mapper
    gpt2: Gpt2
    tuning: Annotated[str, Choice("full", "frozen", "lora")]
    lora: Lora
    clip: TrainClip
    normalize_feature: bool
    epochs: Positive
    batch_size: Positive
    captions_together: Positive
    learning_rate: Rate
    weight_decay: Weight
    warmup_ratio: Annotated[float, Range(0, 1)]
    max_tokens: Annotated[int, Range(2, usual="a word and the end token")]
    word_dropout: Fraction
    pair_prior: list[str]
    turned: list[list[str]]
    turned_weight: Weight
    seed: Seed
    resume: bool
    trainer: dict[str, Any]


@dataclasses.dataclass
class Generation:
    """See `model.options.GenerationOptions`."""

    num_beams: int
    num_captions: int
    max_tokens: int
    min_tokens: int
    length_penalty: float


@dataclasses.dataclass
class Evaluate:
    """Scores on `splits` of the data set `data`; `page_images` pictures of each on the page.

    `gate_images` pictures of the first split are captioned in every precision (see
    `training.evaluation.precision_gate`); 0 leaves that out. `out` is the report folder for the
    data set `train.data`. For another one the report goes to the folder `report` in that data set,
    unless the command line gives `evaluate.out` (see `training.evaluate`).
    """

    checkpoint: str
    data: str
    out: str
    splits: list[str]
    batch_size: Positive
    workers: NotNegative
    max_pixels: Positive
    page_images: NotNegative
    gate_images: NotNegative


@dataclasses.dataclass
class Export:
    """Checkpoint folder in, artifact folder out; the figures of its evaluation are put into it.

    `precision` is `fp32`, `fp16`, `bf16`, `int8`, or `auto`, which follows the rule in
    `training.exporting.precision_choice`. `data` is a data set whose pictures the artifact is
    checked with; null, or a folder without one, checks it with generated pictures.
    """

    checkpoint: str
    out: str
    precision: Annotated[str, Choice("auto", "fp32", "fp16", "bf16", "int8")]
    data: str | None


@dataclasses.dataclass
class Archive:
    """The `.mar` file that the artifact of `export.out` is packed into."""

    out: str


@dataclasses.dataclass
class Config:
    """All blocks of `conf/config.yaml`."""

    prepare: Prepare
    scenes: Scenes
    folder: Folder
    webdataset: WebDataset
    coco: Coco
    clip: Clip
    features: Features
    train: Train
    generation: Generation
    evaluate: Evaluate
    export: Export
    archive: Archive


def load_config(overrides: Sequence[str] = ()) -> Config:
    """The settings with `key=value` overrides applied, checked against the schema.

    `experiment=NAME` lays `conf/experiment/NAME.yaml` over the defaults first.

    Raises:
        Refusal: An unknown key or experiment, or a value of the wrong type, in one line.
    """
    folder = Path(__file__).parent / "conf"
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        config: Any = OmegaConf.to_object(merged)
    except OverrideParseException as error:
        reason = error.message.splitlines()[0]
        raise Refusal(
            f"settings: {error.override!r} cannot be read ({reason}); write key=value, the keys "
            f"are in {folder / 'config.yaml'}"
        ) from error
    except MissingConfigException as error:
        known = ", ".join(sorted(file.stem for file in folder.glob("experiment/*.yaml")))
        raise Refusal(
            f"settings: there is no {error.missing_cfg_file}; experiment is one of {known}, or "
            f"the name of a file of yours in {folder / 'experiment'}"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).splitlines()[:1])
        key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
        where = f" (setting {key})" if key and str(key) not in reason else ""
        raise Refusal(f"settings: {reason}{where}; see {folder / 'config.yaml'}") from error
    check_limits(config)
    try:
        GenerationOptions(**vars(config.generation))
    except Refusal as error:
        raise Refusal(f"generation: {error}") from None
    return config
