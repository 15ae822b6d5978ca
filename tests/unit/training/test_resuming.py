"""A training that is killed and resumed ends as one that was never killed."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.interruption import power_cut
from tests.training_runs import Variant, rows, settings_as_words, weights
from training.captioner.train import train
from training.config import Config

TABLES = ("loss.csv", "validation.csv")
#: Runs `training.train` and kills its own process in a step, as the kernel does without memory.
KILLED = """
import os, signal, sys
from training.captioner.module import CaptionerModule
from training.train import main

step, at = CaptionerModule.training_step, int(sys.argv.pop(1))

def dying(module, batch, index):
    if module.global_step == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(module, batch, index)

CaptionerModule.training_step = dying
main()
"""


@pytest.mark.usefixtures("no_score")
@pytest.mark.parametrize(
    ("after", "changes"),
    [
        (5, {}),  # 5 steps an epoch
        (7, {}),  # back to step 5
        (8, {"checkpoint_every": 2, "schedule": "cosine"}),  # back to step 7
        (4, {"checkpoint_every": 3, "ema": 0.9, "workers": 1, "bucket_batches": 2}),  # to step 3
        (3, {"checkpoint_every": 1, "trainer": {"accumulate_grad_batches": 2}}),
        (4, {"checkpoint_every": 1, "trainer": {"val_check_interval": 2}}),  # back to step 3
    ],
)
def test_an_interrupted_run_resumed_ends_where_an_uninterrupted_one_does(
    variant: Variant, tiny_run: Config, after: int, changes: dict, monkeypatch: pytest.MonkeyPatch
):
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, dropout=0.1)
    trainer = {**tiny_run.train.trainer, "log_every_n_steps": 1, **changes.get("trainer", {})}
    own = {"gpt2": gpt2, "word_dropout": 0.1, **changes, "trainer": trainer}
    whole = variant("whole", **own)
    train(whole)
    cut = variant("cut", **own)
    with power_cut(monkeypatch, at=after):
        train(cut)
    assert not Path(cut.train.out).exists()
    torch.rand(7)  # whatever happened in between
    train(variant("cut", **own, resume=True))
    expected, resumed = weights(whole.train.out), weights(cut.train.out)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    for name in TABLES:
        assert rows(Path(cut.train.curves) / name) == rows(Path(whole.train.curves) / name)


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not_been(
    variant: Variant, tiny_run: Config, monkeypatch: pytest.MonkeyPatch
):
    trainer = {**tiny_run.train.trainer, "log_every_n_steps": 1}
    own = {"ema": 0.9, "checkpoint_every": 2, "trainer": trainer}
    whole = variant("whole", **own)
    train(whole)
    cut = variant("cut", **own)
    command = [sys.executable, "-c", KILLED, "8", *settings_as_words(cut)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    last = torch.load(Path(cut.train.work) / "last.ckpt", weights_only=True)
    assert last["global_step"] == 7  # in the middle of the second epoch, steps 6 to 10
    train(variant("cut", **own, resume=True))
    expected, resumed = weights(whole.train.out), weights(cut.train.out)
    for name, value in expected.items():  # the processes may compute with other threads
        assert torch.allclose(value, resumed[name], atol=1e-5), name
    for name in TABLES:
        tables = [rows(Path(run.train.curves) / name) for run in (whole, cut)]
        assert len(tables[0]) == len(tables[1])
        for one, other in zip(*tables, strict=True):
            assert [*map(float, one.values())] == pytest.approx([*map(float, other.values())], 1e-4)
