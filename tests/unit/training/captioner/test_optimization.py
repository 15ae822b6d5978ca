"""Learning rates by schedule: at the start, at the peak, at the end."""

from __future__ import annotations

import dataclasses
import math

import pytest

from model.network.captioner import ClipCap
from tests.models import small_config
from training.captioner.optimization import adamw
from training.config import Config, load_config

ENDS = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "constant": lambda share: 1.0,
}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config()


@pytest.mark.parametrize("block", ["train", "clip"])
@pytest.mark.parametrize("schedule", list(ENDS))
def test_the_rate_warms_up_over_a_share_of_the_steps_and_follows_its_schedule(
    config: Config, block: str, schedule: str
):
    changes = {"warmup_ratio": 0.2, "learning_rate": 1.0, "schedule": schedule}
    settings = dataclasses.replace(getattr(config, block), **changes)
    made = adamw(ClipCap(small_config()), settings, 20)
    rates = []
    for _ in range(21):
        rates.append(made["lr_scheduler"]["scheduler"].get_last_lr()[0])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert rates[4:] == pytest.approx([ENDS[schedule](k / 16) for k in range(17)])


def test_the_defaults_are_those_that_both_trainings_had(config: Config):
    assert (config.train.schedule, config.clip.schedule) == ("linear", "cosine")
