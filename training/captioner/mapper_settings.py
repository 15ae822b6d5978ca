"""Settings of the mapper against the features it reads: what does not fit is refused by name."""

from __future__ import annotations

from model.config import FEATURE_KINDS, MapperConfig
from model.refusal import Refusal
from training.config import Config, Train
from training.encoding.feature_file import EncoderIdentity


def check_kinds(config: Config) -> None:
    """Refuse a mapper that reads other features than there are."""
    mapper, kind = config.train.mapper.kind, config.features.kind
    if kind not in FEATURE_KINDS:
        raise Refusal(f"features.kind is {kind!r}; it must be {' or '.join(FEATURE_KINDS)}")
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


def check_prefix(settings: Train, encoder: EncoderIdentity) -> None:
    """Refuse a prefix that is not as long as there are patches."""
    patches, given = encoder.shape[0], settings.mapper.prefix_length
    if settings.mapper.kind == "patch" and given != patches:
        raise Refusal(
            f"train.mapper.prefix_length is {given}, but {encoder.name!r} has {patches} "
            "patches, and the patch mapper makes a vector of each; set "
            f"train.mapper.prefix_length={patches}"
        )
