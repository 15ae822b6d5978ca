"""Checks of the settings of CLIP's contrastive training against each other."""

from __future__ import annotations

from model.refusal import Refusal
from training.config import Clip
from training.limits import check_limits

#: Arguments of Lightning's Trainer that have another setting or are fixed, and what to do instead.
_NOT_OURS = {
    "max_epochs": "set clip.epochs",
    "precision": "set clip.precision",
    "default_root_dir": "set clip.out",
    "logger": "its CSV log is in clip.out",
    "callbacks": "they keep the checkpoint to resume from",
    "use_distributed_sampler": "each process has its own part of every batch",
}


def check_clip(settings: Clip) -> None:
    """Refuse a value outside its limit, and settings that have no effect or contradict each other.

    Raises:
        Refusal: In one line, with the key, the value and what to do.
    """
    check_limits(settings, "clip")
    if settings.tuning != "full" and settings.base is None:
        raise Refusal(
            f"clip.tuning is {settings.tuning} but clip.base is null: a CLIP from scratch must "
            "learn; name a trained one or set clip.tuning=full"
        )
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
    if settings.anchor_weight > 0 and settings.base is None:
        raise Refusal(
            f"clip.anchor_weight is {settings.anchor_weight} but clip.base is null: the anchor is "
            "the base as it was; name a trained one, or set clip.anchor_weight=0"
        )
    for name, instead in _NOT_OURS.items():
        if name in settings.trainer:
            raise Refusal(f"clip.trainer.{name} cannot be set: {instead}; leave it out")
