"""The trials of a sweep: suggested, run, ended early, stored, gone on with after a kill."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from model.refusal import Refusal
from training.captioner.run.resuming import run_settings
from training.captioner.train import train
from training.config import Config, load_config
from training.encoding.encode_dataset import encode_dataset
from training.sweeping.report import plot, write_table
from training.sweeping.space import Search

#: Name of the only study in the SQLite file.
STUDY = "sweep"
#: Attribute of a trial that its settings do not fit each other, and why.
REFUSED = "refused"
#: Attribute of a trial that does what a killed one did not finish: the number of that one.
REPEATS = "repeats"
#: Settings that may differ when a sweep goes on, since a trial's score does not depend on them.
_FREE = frozenset({"data", "features", "out", "work", "curves", "resume", "loggers"})


class _Unsuitable(Exception):
    """The settings of one trial were refused; the sweep goes on with the next."""


class ScoreTrial(pl.Callback):
    """Reports validation CIDEr to Optuna after each epoch, and ends a trial that is not promising.

    Args:
        trial: Optuna's trial.

    Attributes:
        best: The best CIDEr so far; the checkpoint of that epoch is kept.
        epochs: Epochs so far.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.best = 0.0
        self.epochs = 0

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Report.

        Raises:
            TrialPruned: The score is below that of earlier trials at this epoch.
        """
        score = float(trainer.callback_metrics["val_CIDEr"])
        self.best, self.epochs = max(self.best, score), self.epochs + 1
        self.trial.set_user_attr("epochs", self.epochs)
        self.trial.report(score, self.epochs)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def sweep(search: Search) -> None:
    """Run the trials that are left, and report.

    Args:
        search: What is varied and what holds for all trials.

    Raises:
        Refusal: The folder holds another sweep; or the first trial was refused.
    """
    settings = search.config.sweep
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{out.resolve() / 'study.db'}"
    study = optuna.create_study(
        storage=storage,
        study_name=STUDY,
        load_if_exists=True,
        direction="maximize",
        pruner=_pruner(search),
    )
    _check_same(study, search, out)
    if not study.get_trials(deepcopy=False):
        for values in search.grid:
            study.enqueue_trial(values)
    _enqueue_killed(study)
    ended = [trial for trial in study.get_trials(deepcopy=False) if _ended(trial)]
    study.sampler = _sampler(search, len(ended))
    left = search.trials - len(ended)
    print(
        f"{len(ended)} of {search.trials} trials are done; the sweep is in {out}", file=sys.stderr
    )

    def objective(trial: optuna.Trial) -> float:
        try:
            return _run(search, trial, out)
        except Refusal as error:
            if not any(_ended(each) for each in study.get_trials(deepcopy=False)):
                raise  # probably nothing fits, such as a data set that is not there
            trial.set_user_attr(REFUSED, str(error))
            raise _Unsuitable from error

    def keep_best(_: optuna.Study, trial: FrozenTrial) -> None:
        """Only the best captioner stays, so that a sweep does not fill the disk."""
        best = _best(study)
        for folder in (out / "trials").iterdir():
            if best is None or folder != trial_folder(out, best.number):
                shutil.rmtree(folder)
        write_table(search, study.get_trials(deepcopy=False), best, out)

    if left > 0:
        study.optimize(objective, left, catch=(_Unsuitable,), callbacks=[keep_best])
    trials, best = study.get_trials(deepcopy=False), _best(study)
    plot(search, trials, best, out / "sweep.png")
    print(write_table(search, trials, best, out))


def trial_folder(out: Path, number: int) -> Path:
    """Where a trial has its checkpoint, its work and its curves."""
    return out / "trials" / f"{number:04d}"


def _run(search: Search, trial: optuna.Trial, out: Path) -> float:
    """Train with suggested settings; returns the best validation CIDEr."""
    words = [each.suggest(trial) for each in search.dimensions]
    print(f"trial {trial.number}: {' '.join(words)}", file=sys.stderr)
    folder = trial_folder(out, trial.number)
    shutil.rmtree(folder, ignore_errors=True)
    config = _placed(load_config([*search.fixed, *words]), folder, trial.number)
    if any(word.startswith("features.") for word in words):
        places: dict[str, Any] = {"data": config.train.data, "out": str(folder / "features")}
        features = dataclasses.replace(config.features, **places)
        encode_dataset(features)
        own = dataclasses.replace(config.train, features=features.out)
        config = dataclasses.replace(config, features=features, train=own)
    score = ScoreTrial(trial)
    train(config, [score])
    return score.best


def _placed(config: Config, folder: Path, number: int) -> Config:
    """The settings of a trial, with places below its folder and a run name of its own."""
    places: dict[str, Any] = {name: str(folder / name) for name in ("work", "curves")}
    own = dataclasses.replace(config.train, **places, out=str(folder / "checkpoint"), resume=False)
    name = f"{config.loggers.run or folder.parent.parent.name}-{number:04d}"
    run = dataclasses.replace(config.loggers, run=name)
    return dataclasses.replace(config, train=own, loggers=run)


def _ended(trial: FrozenTrial) -> bool:
    """Whether a trial came to its own end, and was not killed or ended by an error."""
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    return trial.state == TrialState.FAIL and REFUSED in trial.user_attrs


def _best(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the best score, if one was completed."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def _enqueue_killed(study: optuna.Study) -> None:
    """Mark trials that were killed or interrupted as failed; their settings are tried first."""
    trials = study.get_trials()
    repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL or _ended(trial):
            continue
        if trial.params and trial.number not in repeated:
            study.enqueue_trial(trial.params, user_attrs={REPEATS: trial.number})


def _check_same(study: optuna.Study, search: Search, out: Path) -> None:
    """Refuse to mix trials of two sweeps, whose scores are not comparable.

    Raises:
        Refusal: With the first setting that differs.
    """
    train_settings = search.config.train
    varied = {each.key for each in search.dimensions}
    now: dict[str, Any] = {
        **run_settings("train", train_settings, train_settings.data, _FREE),
        **{f"space of {each.key}": each.text for each in search.dimensions},
    }
    now = {key: str(value) for key, value in now.items() if key not in varied}
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", now)
    elif before != now:
        key = min(k for k in {*before, *now} if before.get(k) != now.get(k))
        raise Refusal(
            f"{out} holds a sweep with other settings ({key} was {before.get(key, 'not set')}, is "
            f"{now.get(key, 'not set')}); name another folder with sweep.out=DIR, or remove it"
        )


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.config.sweep.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=search.config.sweep.startup)


def _sampler(search: Search, ended: int) -> BaseSampler:
    """The sampler; a sweep that goes on draws other random numbers than at its beginning."""
    settings = search.config.sweep
    seed = settings.seed + ended
    if settings.sampler in ("random", "grid"):  # the trials of a grid are enqueued
        return RandomSampler(seed=seed)
    return TPESampler(n_startup_trials=settings.startup, seed=seed, multivariate=True)
