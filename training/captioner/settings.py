"""Checks of the captioner's settings against each other and against the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.refusal import Refusal
from training.config import Config, Train
from training.limits import check_limits

if TYPE_CHECKING:  # importing it takes seconds
    from training.encoding.feature_file import EncoderIdentity

#: Arguments of Lightning's Trainer that have another setting or are fixed, and what to do instead.
_NOT_OURS = {
    "max_epochs": "set train.epochs",
    "logger": "set train.loggers",
    "callbacks": "they keep the best epoch and the last one",
    "precision": "set train.precision",
    "use_distributed_sampler": "train.batch_size captions are split over the devices",
}


def check_train(settings: Train) -> None:
    """Refuse a value outside its limit, and settings that contradict each other.

    Raises:
        Refusal: In one line, with the key, the value and what to do.
    """
    check_limits(settings, "train")
    if settings.objective == "self_critical" and settings.init is None:
        raise Refusal(
            "train.objective is self_critical but train.init is null: captions written by chance "
            "teach nothing before a captioner was trained with cross_entropy; name its folder"
        )
    if settings.tuning != "full" and settings.gpt2.base is None and settings.init is None:
        raise Refusal(
            f"train.tuning is {settings.tuning} but train.gpt2.base is null: a GPT-2 from scratch "
            "must learn; name a trained one or set train.tuning=full"
        )
    for name, instead in _NOT_OURS.items():
        if name in settings.trainer:
            raise Refusal(f"train.trainer.{name} cannot be set: {instead}; leave it out")


def check_kinds(config: Config) -> None:
    """Refuse a mapper that reads another kind of features than `features.kind`."""
    from model.config import MapperConfig  # here, as it imports torch

    mapper, kind = config.train.mapper.kind, config.features.kind
    check_limits(config.features, "features")
    reads = MapperConfig(mapper).feature_kind
    if reads != kind:
        raise Refusal(
            f"train.mapper.kind is {mapper}, which reads {reads} features, but features.kind is "
            f"{kind}; encode and train with features.kind={reads}, or set train.mapper.kind to "
            f"{'patch' if kind == 'patches' else 'mlp, transformer or linear'}"
        )
    if mapper == "patch" and config.train.normalize_feature:
        raise Refusal(
            "train.normalize_feature is true, but the patch mapper normalises every patch itself; "
            "set train.normalize_feature=false"
        )


def check_text_only(config: Config) -> None:
    """Refuse settings that training on captions alone cannot have."""
    settings = config.train
    if not settings.text_only:
        return
    for key, value, wanted in (
        ("features.kind", config.features.kind, "pooled"),
        ("train.normalize_feature", settings.normalize_feature, True),
        ("train.clip.tuning", settings.clip.tuning, "frozen"),
        ("train.objective", settings.objective, "cross_entropy"),
    ):
        if value != wanted:
            raise Refusal(
                f"train.text_only is true but {key} is {str(value).lower()}: a text feature stands "
                "for the normalised feature of a whole image from a frozen CLIP; set "
                f"{key}={str(wanted).lower()}"
            )


def check_prefix(settings: Train, encoder: EncoderIdentity) -> None:
    """Refuse a patch mapper whose prefix is not as long as the encoder has patches."""
    patches, given = encoder.shape[0], settings.mapper.prefix_length
    if settings.mapper.kind == "patch" and given != patches:
        raise Refusal(
            f"train.mapper.prefix_length is {given}, but {encoder.name!r} has {patches} "
            "patches, and the patch mapper makes a vector of each; set "
            f"train.mapper.prefix_length={patches}"
        )


def check_positions(config: Config, positions: int) -> None:
    """Refuse captions for which the language model does not have enough positions.

    Args:
        config: All settings.
        positions: Positions of GPT-2; the prefix takes `train.mapper.prefix_length` of them.
    """
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
