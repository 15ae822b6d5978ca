"""Settings: a mistake is one readable line that names the key."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from model.refusal import Refusal
from training.command import arguments, command
from training.config import load_config


def test_the_defaults_fit_the_schema_and_overrides_are_applied():
    config = load_config(["train.epochs=3", "clip.base=some/clip", "evaluate.splits=[val]"])
    assert config.train.epochs == 3
    assert config.train.epochs != load_config().train.epochs
    assert config.clip.base == "some/clip"
    assert config.evaluate.splits == ["val"]
    assert dataclasses.is_dataclass(config.train.mapper)
    assert config.train.trainer["accelerator"] == "cpu"


def test_settings_of_lightning_s_trainer_may_be_added():
    assert load_config(["+train.trainer.max_steps=5"]).train.trainer["max_steps"] == 5


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epoch=3", "epoch"),
        ("trian.epochs=3", "trian"),
        ("train.mapper.kinds=mlp", "kinds"),
        ("+train.colour=red", "colour"),
        ("train.epochs=three", "train.epochs"),
        ("train.epochs=2.5", "train.epochs"),
        ("train.learning_rate=fast", "train.learning_rate"),
        ("train.normalize_feature=perhaps", "train.normalize_feature"),
        ("train.epochs=null", "train.epochs"),
        ("train.mapper=mlp", "train.mapper"),
        ("evaluate.splits=test", "evaluate.splits"),
        ("scenes.fractions.train=most", "scenes.fractions.train"),
        ("train.epochs=", "train.epochs"),
        ("~train.epochs", "train.epochs"),
        # not even an override
        ("train.epochs", "train.epochs"),
        ("train.mapper={kind: mlp", "train.mapper"),
        ("train.epochs=[3", "train.epochs"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override: str, key: str):
    with pytest.raises(Refusal) as caught:
        load_config([override])
    message = str(caught.value)
    assert key in message
    assert message.startswith("settings: ")
    assert "config.yaml" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 400


def test_a_command_ends_with_that_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["training.train", "train.epoch=3"])
    with pytest.raises(SystemExit, match="^error: settings: .*epoch"):
        command(lambda: print(load_config(arguments(None).parse_args().overrides)))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", ["training.train", "train.epoch=3", "--debug"])
    with pytest.raises(Refusal):
        command(lambda: print(load_config(arguments(None).parse_args().overrides)))
