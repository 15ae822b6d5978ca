"""A data set may bring checks of captions; the product works without those of the drawn scenes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from tests import ROOT
from training.evaluation.scores.checks import CHECKS, find_checks
from training.scenes import Scene, write_captions
from training.scenes.language.accuracy import SceneAccuracy

#: Commands and folders of `training/` that may not import the drawn scenes.
WITHOUT_SCENES = ("evaluate.py", "export.py", "train.py", "clip.py", "features.py", "archive.py",
                  "evaluation", "exporting", "captioner", "contrastive", "encoding")  # fmt: skip


def test_checks_of_scenes_are_those_of_scene_accuracy(tiny_scenes: Path):
    checks = find_checks(tiny_scenes)
    assert checks is not None
    truth = json.loads((tiny_scenes / "truth.json").read_text())
    scenes = {int(image_id): Scene.from_dict(scene) for image_id, scene in truth.items()}
    shown = list(scenes)
    captions = {i: write_captions(scenes[shown[n - 1]])[0] for n, i in enumerate(shown)}
    split, accuracy = checks.split(), SceneAccuracy()
    for image_id, caption in captions.items():
        found = [(false.kind, false.span) for false in split.add(image_id, caption)]
        assert found == [(c.kind, c.span) for c in accuracy.add(caption, scenes[image_id])]
        contrasts = split.contrasts(write_captions(scenes[image_id]))
        for number, (true, false, kind) in enumerate(contrasts):
            assert true != false
            split.choose(kind, number == 0)
            accuracy.add_choice(kind, number == 0)
    assert split.figures() == accuracy.figures()
    assert 0 < split.figures()["precision"] < 1
    assert 0 < split.figures()["choice"] < 1
    of_a_kind = {name for name in checks.titles if name.startswith("choice_")}
    assert (set(checks.titles) | set(checks.bars)) - of_a_kind <= set(split.figures())


def test_a_data_set_without_truth_has_no_checks(tmp_path: Path):
    (tmp_path / "captions.json").write_text("{}")
    assert find_checks(tmp_path) is None


def test_only_the_registry_names_the_drawn_scenes():
    assert list(CHECKS.values()) == ["training.scenes.checks"]
    files = [
        file
        for name in WITHOUT_SCENES
        for file in ((ROOT / "training" / name).rglob("*.py") if "." not in name
                     else [ROOT / "training" / name])
    ]  # fmt: skip
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert not any(name.startswith("training.scenes") for name in names), file
