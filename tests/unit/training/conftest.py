"""Settings of small trainings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.training_runs import Variant
    from training.config import Config


@pytest.fixture
def variant(tiny_run: Config, tmp_path: Path) -> Variant:
    """The settings of the small run with changes, writing below `tmp_path`."""

    def change(name: str = "run", **changes: Any) -> Config:
        places = {
            "out": str(tmp_path / name / "checkpoint"),
            "work": str(tmp_path / name / "work"),
            "curves": str(tmp_path / name / "curves"),
        }
        settings = dataclasses.replace(tiny_run.train, **{**places, **changes})
        return dataclasses.replace(tiny_run, train=settings)

    return change


@pytest.fixture
def no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation CIDEr is not what these tests are about."""
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: 0.5)
