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
from training.limits import Choice, Choices, Range, check_limits
from training.sources.settings import Coco, Feedback, Folder, Scenes, WebDataset

Positive = Annotated[int, Range(1)]
NotNegative = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, below=1)]
Weight = Annotated[float, Range(0)]
Rate = Annotated[float, Range(above=0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
LoggerNames = Annotated[list[str], Choices("wandb", "tensorboard", "mlflow")]


@dataclasses.dataclass
class Prepare:
    """Which `source` the data set is made from: `scenes`, `folder`, `webdataset`, ...

    They are the names of the blocks of data sources.
    """

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
class Augmentation:
    """Random changes of the pictures of a training; 0 leaves one out.

    `crop` is the largest share of a picture's side that is cut away. `colour` is the largest
    relative change of brightness, contrast and saturation. `blur` is the largest width of a
    Gaussian blur, in pixels.
    """

    crop: Annotated[float, Range(0, 0.5)]
    colour: Annotated[float, Range(0, 0.5)]
    blur: Annotated[float, Range(0, 2)]


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
    run, with the settings that it was started with. `schedule` and `precision` as for `Train`.
    `anchor_weight` is the weight of the distance to the features of the base (see
    `training.contrastive.anchor`), `hard_negatives` that of the negatives that look most like the
    positive (see `training.contrastive.loss`); 0 leaves either out. `checkpoint_every` optimiser
    steps a checkpoint to resume from is written. `trainer` has arguments of Lightning's Trainer;
    with several devices each has batches of `batch_size`. `loggers` record the training beside its
    CSV log (see `Loggers`).
    """

    base: str | None
    data: str
    out: str
    tuning: Annotated[str, Choice("full", "lora")]
    lora: Lora
    model: ClipSizes
    caption_weight: Weight
    region_weight: Weight
    anchor_weight: Weight
    hard_negatives: Annotated[float, Range(0, usual="usually 0.1 to 1")]
    captioner: ClipCaptioner
    epochs: NotNegative
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Weight
    schedule: Annotated[str, Choice("linear", "cosine", "constant")]
    warmup_ratio: Annotated[float, Range(0, 1)]
    shift: NotNegative
    recolour: Fraction
    mirror: Fraction
    augmentation: Augmentation
    seed: Seed
    precision: Annotated[str, Choice("auto", "32-true", "bf16-mixed")]
    compile: bool
    checkpoint_every: Positive
    resume: bool
    loggers: LoggerNames
    trainer: dict[str, Any]


@dataclasses.dataclass
class Features:
    """Encoding of every image; `on_broken` is `stop` or `skip`.

    `clip` is the encoder (see `model.pretrained.encoder_folder`); `kind` is `pooled` for one
    feature of an image, or `patches` for one of each patch, which `train.mapper.kind=patch` reads.
    `shard_batches` batches make one shard of the feature file. A run that is killed loses at most
    the work on one shard. `device` is `auto`, or a device in PyTorch's words (see
    `training.device`).
    """

    data: str
    clip: str
    kind: Annotated[str, Choice("pooled", "patches")]
    out: str
    device: str
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
    end_token: str | None
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
    `batch_size` captions make a batch; several devices share them.
    `captions_together` captions of an image are put into the same batch, and GPT-2 reads their
    prefix once: faster with a long prefix, but a batch has fewer images.
    `bucket_batches`: in every window of so many batches, captions of like length are put into the
    same batch, so that there is less padding (see `training.captioner.batches`); 0 leaves it out.
    `schedule` is what the learning rate does after its warm-up, which is the share `warmup_ratio`
    of the steps: it falls to zero (`linear`, `cosine`) or stays (`constant`).
    `label_smoothing` is the share of the loss that wants all words to be equally likely.
    `word_dropout` is the share of the input words that are blanked (see `ClipCap.forward`).
    `pair_prior` lists words, such as colours. The captioner does not learn how often they occur
    together with the word after them (see `training.captioner.objectives.pair_prior`).
    `turned` lists pairs of phrases such as "left of" and "right of". Of a sentence and the one with
    the other phrase the captioner learns which is true, by a loss of weight `turned_weight` (see
    `training.captioner.objectives.turned_sentences`).
    `ema` is the decay of the moving average of the weights, such as 0.999; the average is what is
    validated and saved (see `training.captioner.averaging`). 0 leaves it out.
    `patience`: training ends when so many validations in a row were not better than the best one; 0
    trains all epochs.
    `precision` is one of Lightning's, or `auto` (see `training.precision`). `workers` processes
    read the batches ahead; 0 reads them in the training process.
    `text_only` trains on captions alone: their text features with Gaussian noise of the width
    `text_noise` stand for those of images (see `training.captioner.text_features`).
    `work` is the folder of the checkpoints to resume from: one at the end of every epoch, and one
    after every `checkpoint_every` optimiser steps (0: at the end of an epoch only). `curves` is the
    folder of the CSV tables of losses and validation scores. `resume` continues an interrupted run,
    with the settings that it was started with; `epochs` too, because the learning rate falls over
    all epochs. Without it a new run moves the checkpoints of an interrupted one aside.
    `init` is a checkpoint folder to go on from, or its name on the hub: its mapper, GPT-2,
    tokenizer and end token are taken, and `mapper`, `gpt2` and `normalize_feature` are not read.
    Null starts with a new mapper.
    `objective` is `cross_entropy`, or `self_critical` for training by the score of `samples`
    captions that the captioner writes of each image (see
    `training.captioner.objectives.self_critical`). A batch then has `batch_size` images, and
    `captions_together`, `word_dropout` and `pair_prior` are not read. `loggers` record the
    training beside its CSV log (see `Loggers`).
    """

    data: str
    features: str
    init: str | None
    objective: Annotated[str, Choice("cross_entropy", "self_critical")]
    samples: Annotated[int, Range(2, usual="usually 5")]
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
    bucket_batches: NotNegative
    learning_rate: Rate
    weight_decay: Weight
    schedule: Annotated[str, Choice("linear", "cosine", "constant")]
    warmup_ratio: Annotated[float, Range(0, 1)]
    max_tokens: Annotated[int, Range(2, usual="a word and the end token")]
    word_dropout: Fraction
    label_smoothing: Fraction
    pair_prior: list[str]
    turned: list[list[str]]
    turned_weight: Weight
    ema: Annotated[float, Range(0, below=1, usual="usually 0.99 to 0.9999")]
    patience: NotNegative
    text_only: bool
    text_noise: Annotated[float, Range(0, usual="usually 0.03 to 0.2")]
    seed: Seed
    precision: Annotated[str, Choice("auto", "32-true", "bf16-mixed")]
    workers: NotNegative
    checkpoint_every: NotNegative
    resume: bool
    loggers: LoggerNames
    trainer: dict[str, Any]


@dataclasses.dataclass
class Loggers:
    """How the loggers that `train.loggers` and `clip.loggers` name record a training.

    `folder` has what is kept on this machine: `wandb`, `tensorboard`, and `mlflow.db` with
    `mlflow-artifacts`. `project` is the project of W&B and the experiment of MLflow. `run` is the
    name of the run; null for one with the time. `pictures` of the validation split are shown with
    their captions at every validation. `checkpoint` makes the final checkpoint folder an artifact
    of the run; TensorBoard stores none, and gets its SHA-256. `wandb` is `online`, which needs a
    key, or `offline`, which writes what `wandb sync` sends later. `mlflow` is the address of a
    tracking server; null takes that of MLFLOW_TRACKING_URI, or else a SQLite file in `folder`.
    """

    folder: str
    project: str
    run: str | None
    pictures: NotNegative
    checkpoint: bool
    wandb: Annotated[str, Choice("online", "offline")]
    mlflow: str | None


@dataclasses.dataclass
class Generation:
    """See `model.options.GenerationOptions`."""

    num_beams: int
    num_captions: int
    max_tokens: int
    min_tokens: int
    max_characters: int
    length_penalty: float
    repetition_penalty: float
    no_repeat_ngram_size: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    prompt: str


@dataclasses.dataclass
class Quality:
    """The head that says how likely a caption is right (see `training.quality`).

    It is learned from the captions of up to `pictures` pictures of `split` of the data set `data`:
    those of the captioner's own search, and `draws` by chance. A share `held_out` of the pictures
    is left out; half of those calibrate the head, and the other half give the figures in
    `quality.json`. `width` is that of its inner layers, `dropout` and `weight_decay` keep it from
    learning the pictures by heart. `device` captions, as for `Features`.
    """

    checkpoint: str
    data: str
    split: str
    pictures: Positive
    draws: Annotated[int, Range(0, 10)]
    held_out: Annotated[float, Range(above=0, below=1)]
    width: Positive
    dropout: Fraction
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Weight
    seed: Seed
    device: str
    workers: NotNegative
    max_pixels: Positive


@dataclasses.dataclass
class OodSettings:
    """How far a picture is from those of the training (see `training.ood`).

    It is learned from at most `pictures` training pictures of the data set `data`, in at most
    `groups` groups, and calibrated on at most as many of its validation pictures. Of at most
    `reference` of those the captions are kept, for `monitoring.drift`. `device` encodes, as for
    `Features`.
    """

    checkpoint: str
    data: str
    pictures: Annotated[int, Range(3)]
    groups: Positive
    reference: Positive
    seed: Seed
    device: str
    batch_size: Positive
    workers: NotNegative
    max_pixels: Positive


@dataclasses.dataclass
class Evaluate:
    """Scores on `splits` of the data set `data`; `page_images` pictures of each on the page.

    `gate_images` pictures of the first split are captioned in every precision (see
    `training.evaluation.precision_gate`); 0 leaves that out. `out` is the report folder for the
    data set `train.data`. For another one the report goes to the folder `report` in that data set,
    unless the command line gives `evaluate.out` (see `training.evaluate`). `device` captions the
    splits, as for `Features`; the precisions are compared on the CPU, which serves them.
    `results` is a file of captions in COCO's form that is scored in place of a captioner; null asks
    the captioner of `checkpoint`. `allow_empty` scores empty captions in it, which are refused
    otherwise. `clip` is the Hugging Face name or folder of a CLIP that gives CLIPScore (see
    `training.evaluation.scores.clip_score`). `instances` is COCO's instances file, for CHAIR (see
    `training.evaluation.scores.chair`), and `synonyms` a list of objects in place of that of COCO.
    """

    checkpoint: str
    data: str
    out: str
    results: str | None
    allow_empty: bool
    splits: list[str]
    clip: str | None
    instances: str | None
    synonyms: str | None
    device: str
    batch_size: Positive
    workers: NotNegative
    max_pixels: Positive
    page_images: NotNegative
    gate_images: NotNegative


@dataclasses.dataclass
class Export:
    """Checkpoint folder in, artifact folder out; the figures of its evaluation are put into it.

    `precision` is `fp32`, `fp16`, `bf16`, `int8`, or `auto`, which follows the rule in
    `training.exporting.precision_choice`. `format` is `torchscript`, one file, which is what a
    server loads; or `programs`, the same captioner as programs of `torch.export`, in fp32 or bf16.
    `data` is a data set whose pictures the artifact is checked with; null, or a folder without one,
    checks it with generated pictures.
    """

    checkpoint: str
    out: str
    precision: Annotated[str, Choice("auto", "fp32", "fp16", "bf16", "int8")]
    format: Annotated[str, Choice("torchscript", "programs")]
    data: str | None


@dataclasses.dataclass
class Archive:
    """The `.mar` file that the artifact of `export.out` is packed into."""

    out: str


@dataclasses.dataclass
class Sweep:
    """A search for better settings of the captioner's training (`training.sweep`).

    `space` lists the settings that are varied, each as an override in Hydra's words for sweeps:
    `train.batch_size=64,128`, `train.learning_rate=tag(log,interval(1e-3,1e-2))`. `out` is the
    folder of the sweep, which goes on where it was killed. `trials` are made in all; a `grid` makes
    one of each combination and ignores the number. `tpe` is Optuna's sampler (Watanabe, arXiv
    2304.11127), which after `startup` random trials prefers what was good. From then on `median`
    ends a trial whose validation CIDEr after an epoch is below the median of the trials before it.
    """

    space: list[str]
    out: str
    trials: Positive
    sampler: Annotated[str, Choice("tpe", "random", "grid")]
    pruner: Annotated[str, Choice("median", "none")]
    startup: Positive
    seed: Seed


@dataclasses.dataclass
class Config:
    """All blocks of `conf/config.yaml`."""

    prepare: Prepare
    scenes: Scenes
    folder: Folder
    webdataset: WebDataset
    coco: Coco
    feedback: Feedback
    clip: Clip
    features: Features
    train: Train
    loggers: Loggers
    sweep: Sweep
    generation: Generation
    quality: Quality
    ood: OodSettings
    evaluate: Evaluate
    export: Export
    archive: Archive


def load_config(overrides: Sequence[str] = ()) -> Config:
    """The settings with `key=value` overrides applied, checked against the schema.

    `experiment=NAME` lays `conf/experiment/NAME.yaml` over the defaults first, and `sweep=NAME`
    the space of `conf/sweep/NAME.yaml`.

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
        group = str(error.missing_cfg_file).partition("/")[0]
        known = ", ".join(sorted(file.stem for file in folder.glob(f"{group}/*.yaml")))
        raise Refusal(
            f"settings: there is no {error.missing_cfg_file}; {group} is one of {known}, or "
            f"the name of a file of yours in {folder / group}"
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
