"""Settings: a mistake is one readable line that names the key."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from model.refusal import Refusal
from tests import ROOT
from training.command import arguments, command
from training.config import load_config
from training.limits import check_limits


def test_the_defaults_fit_the_schema_and_overrides_are_applied():
    config = load_config(["train.epochs=3", "clip.base=some/clip", "evaluate.splits=[val]"])
    assert config.train.epochs == 3
    assert config.train.epochs != load_config().train.epochs
    assert config.clip.base == "some/clip"
    assert config.evaluate.splits == ["val"]
    assert dataclasses.is_dataclass(config.train.mapper)
    assert config.train.trainer["accelerator"] == "auto"


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


@pytest.mark.parametrize(
    "name", ["prepare", "train", "clip", "evaluate", "export", "archive", "sweep"]
)
@pytest.mark.parametrize("setting", ["train.epoch=3", "train.epochs=0"])
def test_a_command_tells_a_wrong_setting_before_its_heavy_imports(name: str, setting: str):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"training.{name}", setting],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert "epoch" in lines[-1]
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    assert "omegaconf" in imported
    assert not imported & {"torch", "transformers", "pytorch_lightning", "pycocoevalcap"}


def test_the_default_of_every_setting_is_within_its_limit():
    check_limits(load_config())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs=0", "train.epochs is 0; it must be at least 1"),
        ("train.max_tokens=0", "train.max_tokens is 0; it must be at least 2, a word and the end"),
        ("train.word_dropout=5", r"train.word_dropout is 5.0; .* at least 0 and less than 1"),
        ("train.learning_rate=0", "train.learning_rate is 0.0; it must be above 0"),
        ("train.learning_rate=inf", "train.learning_rate is inf; it must be above 0"),
        ("train.warmup_ratio=1.1", "train.warmup_ratio is 1.1; .* at least 0 and at most 1"),
        ("train.tuning=most", "train.tuning is 'most'; it must be full, frozen or lora"),
        ("train.clip.lora.rank=0", "train.clip.lora.rank is 0; it must be at least 1, usually 4"),
        ("train.seed=-1", "train.seed is -1; it must be at least 0 and at most 4294967295"),
        ("train.mapper.kind=cnn", "train.mapper.kind is 'cnn'; it must be mlp, transformer, lin"),
        ("clip.model.heads=0", "clip.model.heads is 0; it must be at least 1"),
        ("features.batch_size=0", "features.batch_size is 0; it must be at least 1"),
        ("features.kind=words", "features.kind is 'words'; it must be pooled or patches"),
        ("generation.max_tokens=0", "generation: option max_tokens is '0'; .* from 1 to 64"),
        ("generation.num_captions=8", "generation: option num_captions is '8'; .* at most num_be"),
        ("evaluate.page_images=-1", "evaluate.page_images is -1; it must be at least 0"),
        ("export.precision=fp8", "export.precision is 'fp8'; it must be auto, fp32, fp16, bf16 o"),
    ],
)
def test_a_value_outside_its_limit_is_refused_with_key_value_and_limit(setting: str, message: str):
    with pytest.raises(Refusal, match=f"^{message}") as caught:
        load_config([setting])
    assert len(str(caught.value).splitlines()) == 1
