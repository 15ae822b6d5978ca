"""Settings of the pipeline: a typed schema over `conf/config.yaml`, composed by Hydra.

DVC reads the same YAML file for its `params`, so a hyper-parameter stands in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from model.refusal import Refusal
from training.sources.settings import Coco, Folder, Scenes, WebDataset


@dataclasses.dataclass
class Prepare:
    """Which `source` the data set is made from: `scenes`, `folder`, `webdataset` or `coco`."""

    source: str


@dataclasses.dataclass
class ClipSizes:
    """Sizes of a CLIP that is trained from scratch (`clip.base` is null)."""

    width: int
    layers: int
    heads: int
    patch: int
    image_size: int
    text_layers: int
    text_width: int
    max_text: int
    projection: int
    vocabulary: int


@dataclasses.dataclass
class ClipCaptioner:
    """The captioner whose loss trains CLIP beside the contrastive one.

    `word_dropout` and `pair_prior` as for `Train`.
    """

    prefix_length: int
    width: int
    layers: int
    heads: int
    word_dropout: float
    pair_prior: list[str]


@dataclasses.dataclass
class Lora:
    """Rank of the matrices beside the weights, their scale alpha / rank, and their dropout."""

    rank: int
    alpha: float
    dropout: float


@dataclasses.dataclass
class Clip:
    """Contrastive training of CLIP on a caption data set.

    `base` is a Hugging Face name or folder to fine-tune, null to start from `model`; `tuning` of it
    is `full`, or `lora` with the settings of that name.
    `caption_weight` and `region_weight` 0 leave contrastive training alone; the region loss wants
    boxes in the data set. `shift` is the random shift in pixels. `recolour` is the share of a batch
    whose things change colour at random (see `training.contrastive.repainting`); such pictures
    teach nothing about attributes.
    """

    base: str | None
    data: str
    out: str
    tuning: str
    lora: Lora
    model: ClipSizes
    caption_weight: float
    region_weight: float
    captioner: ClipCaptioner
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    shift: int
    recolour: float
    seed: int
    precision: str
    compile: bool
    resume: bool


@dataclasses.dataclass
class Features:
    """Encoding of every image; `on_broken` is `stop` or `skip`.

    `clip` is the encoder (see `model.pretrained.encoder_folder`); `kind` is `pooled` for one
    feature of an image, or `patches` for one of each patch, which `train.mapper.kind=patch` reads.
    `shard_batches` batches make one file of the feature file, and are what a killed run may lose.
    """

    data: str
    clip: str
    kind: str
    out: str
    batch_size: int
    shard_batches: int
    workers: int
    on_broken: str
    max_pixels: int


@dataclasses.dataclass
class Mapper:
    """See `model.config.MapperConfig`."""

    kind: str
    prefix_length: int
    clip_length: int
    layers: int
    heads: int


@dataclasses.dataclass
class Gpt2:
    """`base` is a Hugging Face name or folder, null for a GPT-2 of these sizes from scratch."""

    base: str | None
    layers: int
    width: int
    heads: int
    vocabulary: int
    dropout: float


@dataclasses.dataclass
class TrainClip:
    """What of CLIP the caption loss trains.

    `tuning` is `frozen` (the features are cached), `full`, or `lora` with the settings of that
    name. One that learns sees the pictures themselves: `workers` processes decode those of at most
    `max_pixels` into the folder `pixels` (see `training.encoding.pixel_cache`), once for all runs.
    """

    tuning: str
    learning_rate: float
    lora: Lora
    pixels: str
    workers: int
    max_pixels: int


@dataclasses.dataclass
class Train:
    """The captioner; `trainer` goes to Lightning's Trainer.

    `features` are read while CLIP is frozen (see `TrainClip`).
    `tuning` of GPT-2 is `full`, `frozen`, or `lora` with the settings of that name.
    `captions_together` captions of an image stand side by side in a batch, and its prefix is read
    once for them: faster with a long prefix, but a batch has fewer images.
    `word_dropout` is the share of the words read that are blanked (see `ClipCap.forward`).
    `pair_prior` lists words, such as colours: the captioner is kept from guessing the next word
    from one of them, or one of them from the next word (see `training.captioner.pair_prior`).
    `work` holds what a run needs to resume; `curves` is the folder of the CSV files of losses and
    validation scores.
    """

    data: str
    features: str
    out: str
    work: str
    curves: str
    mapper: Mapper
    gpt2: Gpt2
    tuning: str
    lora: Lora
    clip: TrainClip
    normalize_feature: bool
    epochs: int
    batch_size: int
    captions_together: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    max_tokens: int
    word_dropout: float
    pair_prior: list[str]
    seed: int
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
    """Scores on `splits`, and `page_images` pictures of each on the page.

    `gate_images` pictures of the first split are captioned in every precision (see
    `training.evaluation.precision_gate`); 0 leaves that out.
    """

    checkpoint: str
    data: str
    out: str
    splits: list[str]
    batch_size: int
    workers: int
    max_pixels: int
    page_images: int
    gate_images: int


@dataclasses.dataclass
class Export:
    """Checkpoint folder in, artifact folder out; the figures of its evaluation travel with it.

    `precision` is `fp32`, `fp16`, `bf16`, `int8`, or `auto` for the fastest that passes its gate.
    """

    checkpoint: str
    out: str
    precision: str


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
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
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
