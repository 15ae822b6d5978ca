"""A sweep: its trials, early ends, going on after a kill, and what it reports."""

from __future__ import annotations

import csv
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl

from model.checkpoint import Checkpoint
from model.refusal import Refusal
from training.config import Config, load_config
from training.sweeping.space import read_search

if importlib.util.find_spec("optuna") is None:
    pytest.skip("the extra sweep is not installed", allow_module_level=True)

from training.sweeping.study import ScoreTrial, sweep

Sweep = Callable[..., list[dict[str, str]]]


@pytest.fixture
def trained() -> list[Config]:
    """The settings of every training."""
    return []


@pytest.fixture
def start(
    tiny_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[Config]
) -> Sweep:
    """Runs a sweep whose trainings score by their learning rate at once; returns its table."""

    def train(config: Config, callbacks: Sequence[pl.Callback]) -> None:
        (score,) = callbacks
        assert isinstance(score, ScoreTrial)
        trained.append(config)
        if config.train.learning_rate == 0.5:
            raise Refusal("too fast")
        Path(config.train.out).mkdir(parents=True)
        for epoch in range(config.train.epochs):
            figures = {"val_CIDEr": config.train.learning_rate * (epoch + 1)}
            score.on_validation_end(SimpleNamespace(callback_metrics=figures), None)  # type: ignore[arg-type]

    monkeypatch.setattr("training.sweeping.study.train", train)

    def run(*words: str) -> list[dict[str, str]]:
        places = [f"train.data={tiny_scenes}", f"sweep.out={tmp_path / 'sweep'}"]
        sweep(read_search(["sweep.space=[]", "train.epochs=3", *places, *words]))
        with (tmp_path / "sweep" / "trials.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def test_a_grid_tries_every_combination_and_says_which_is_best(
    start: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: list[Config]
):
    rows = start(
        "train.learning_rate=0.1,0.3,0.2", "train.word_dropout=0,0.1", "sweep.sampler=grid",
        "sweep.pruner=none",
    )  # fmt: skip
    assert len(rows) == 6
    assert {row["state"] for row in rows} == {"complete"}
    tried = {(row["train.learning_rate"], row["train.word_dropout"]) for row in rows}
    assert len(tried) == 6
    assert max(float(row["CIDEr"]) for row in rows) == pytest.approx(0.9)
    assert len({config.train.out for config in trained}) == 6
    assert len({config.loggers.run for config in trained}) == 6
    *_, line = (tmp_path / "sweep" / "trials.txt").read_text().splitlines()
    assert line in capsys.readouterr().out
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "training.train"]
    assert load_config(words[3:]).train.learning_rate == 0.3
    assert load_config(words[3:]).train.epochs == 3
    best = re.search(r"best: trial (\d+), CIDEr 0.900", (tmp_path / "sweep/trials.txt").read_text())
    assert best is not None
    kept = [folder.name for folder in (tmp_path / "sweep" / "trials").iterdir()]
    assert kept == [f"{int(best[1]):04d}"]
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_bad_trial_ends_early(start: Sweep):
    words = ["sweep.startup=3", "sweep.sampler=random", "sweep.trials=8"]
    rows = start(*words, "train.learning_rate=choice(0.1,0.2,0.3)")
    early = [row for row in rows if row["state"] == "ended early"]
    assert early
    assert {row["train.learning_rate"] for row in early} <= {"0.1", "0.2"}
    assert {row["epochs"] for row in early} == {"1"}
    assert {row["epochs"] for row in rows if row not in early} == {"3"}


def test_a_killed_sweep_goes_on_with_what_it_had_begun(start: Sweep):
    words = ["train.learning_rate=0.1,0.2,0.3", "sweep.sampler=grid", "sweep.pruner=none"]
    report = ScoreTrial.on_validation_end

    def killed(score: ScoreTrial, *others: Any) -> None:
        if score.trial.number == 1:
            raise SystemExit  # Optuna does not see it, so the trial stays `running`
        report(score, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoreTrial, "on_validation_end", killed)
        with pytest.raises(SystemExit):
            start(*words)
    rows = start(*words)
    assert [row["state"] for row in rows] == [
        "complete", "refused or killed", "complete", "complete",
    ]  # fmt: skip
    tried = [row["train.learning_rate"] for row in rows]
    assert tried == ["0.1", "0.2", "0.3", "0.2"]
    assert start(*words) == rows  # nothing is left to do


def test_another_sweep_does_not_join_one_in_its_folder(start: Sweep):
    words = ["train.learning_rate=0.1,0.2", "sweep.sampler=grid"]
    start(*words)
    with pytest.raises(
        Refusal, match=r"holds a sweep with other settings \(train.epochs was 3, is"
    ):
        start(*words, "train.epochs=5")
    with pytest.raises(
        Refusal, match=r"\(space of train.learning_rate was .*0.2, is .*0.4\); name"
    ):
        start("train.learning_rate=0.1,0.4", "sweep.sampler=grid")


def test_a_trial_whose_settings_are_refused_is_in_the_table(start: Sweep):
    words = ["sweep.sampler=random", "sweep.trials=4", "sweep.pruner=none", "sweep.seed=6"]
    rows = start("train.learning_rate=choice(0.1,0.5)", *words)
    states = {row["train.learning_rate"]: row["state"] for row in rows}
    assert states == {"0.1": "complete", "0.5": "refused or killed"}
    assert len(rows) == 4


def test_a_sweep_whose_first_trial_is_refused_stops(start: Sweep, trained: list[Config]):
    with pytest.raises(Refusal, match="too fast"):
        start("train.learning_rate=0.5", "train.batch_size=16,32")
    assert len(trained) == 1


def test_real_trainings_are_trials_and_end_early(
    tiny_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    features, train = tiny_run.features, tiny_run.train
    scores = iter([0.5, 0.6, 0.1])
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(scores))
    words = [
        *(f"features.clip={features.clip}", "features.kind=pooled"),
        *(f"train.data={train.data}", f"train.features={train.features}", "train.epochs=2"),
        *("train.mapper={kind: linear, prefix_length: 4}", "train.pair_prior=[]"),
        *(
            "train.gpt2={layers: 1, width: 32, heads: 2, vocabulary: 400}",
            "generation.max_tokens=9",
        ),
        *("sweep.space=[]", "sweep.startup=1", f"sweep.out={tmp_path / 'sweep'}"),
        *("sweep.sampler=grid", "train.learning_rate=1e-3,3e-3"),
    ]
    monkeypatch.setattr(sys, "argv", ["training.sweep", *words])
    runpy.run_module("training.sweep", run_name="__main__")
    with (tmp_path / "sweep" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], row["CIDEr"], row["epochs"]) for row in rows] == [
        ("complete", "0.600", "2"),
        ("ended early", "0.100", "1"),
    ]
    checkpoint = Checkpoint.load(tmp_path / "sweep" / "trials" / "0000" / "checkpoint")
    assert checkpoint.training is not None
    assert str(checkpoint.training["learning_rate"]) == rows[0]["train.learning_rate"]
