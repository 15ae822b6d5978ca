"""The captioner that a training goes on from: any checkpoint, one's own or a published one.

Its mapper, GPT-2, tokenizer and end token are taken. The encoder is that of the settings, which has
to have the same form as the captioner's own.
"""

from __future__ import annotations

import dataclasses
import sys

from model.checkpoint import Checkpoint
from model.config import CaptionerConfig
from model.pretrained.checkpoint_name import checkpoint_folder
from model.refusal import Refusal
from training.config import Config, Mapper
from training.encoding.encoder import Encoder, vision_sha256


def started_from(config: Config) -> tuple[Config, Checkpoint | None]:
    """The checkpoint of `train.init`, and the settings with its mapper; None where there is none.

    Raises:
        Refusal: `train.init` is neither a checkpoint folder nor the name of one on the hub.
    """
    if config.train.init is None:
        return config, None
    start = Checkpoint.load(checkpoint_folder(config.train.init))
    given = start.captioner.config
    mapper = Mapper(**dataclasses.asdict(given.mapper))
    train = dataclasses.replace(
        config.train, mapper=mapper, normalize_feature=given.normalize_feature
    )
    return dataclasses.replace(config, train=train), start


def check_start(init: str, given: CaptionerConfig, encoder: Encoder) -> None:
    """Refuse a captioner that reads other features than those of the encoder.

    Args:
        init: The setting `train.init`, for the message.
        given: The config of the captioner.
        encoder: The encoder of the settings.

    Raises:
        Refusal: Width, kind or number of the features differ.
    """
    name, shape = encoder.identity.name, encoder.identity.shape
    if given.feature_width != shape[-1]:
        raise Refusal(
            f"train.init={init} reads features {given.feature_width} wide, but those of "
            f"features.clip={name} are {shape[-1]} wide; name the encoder that it was trained with"
        )
    if given.preprocessing != encoder.preprocessing:
        raise Refusal(
            f"train.init={init} was trained on pictures prepared as {given.preprocessing}, but "
            f"features.clip={name} prepares them as {encoder.preprocessing}; name the encoder that "
            "it was trained with"
        )


def note_other_encoder(start: Checkpoint, init: str, encoder: Encoder) -> None:
    """Say so if the captioner was trained with an encoder of other weights."""
    own = start.captioner.clip
    if own is not None and vision_sha256(own) != encoder.identity.sha256:
        print(
            f"note: train.init={init} was trained with other weights of the encoder than those of "
            f"features.clip={encoder.identity.name}; its mapper has to learn them anew",
            file=sys.stderr,
        )
