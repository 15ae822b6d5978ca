"""The stages in the two dvc.yaml depend on what their commands read, and write what they say."""

from __future__ import annotations

import ast
import functools
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from tests import ROOT
from training.config import Config, load_config

EXPERIMENTS = ROOT / "training" / "conf" / "experiment"
BLOCKS = ("prepare", "features", "train", "quality", "ood", "evaluate", "export", "archive")


def stages() -> dict[str, PipelineStage]:
    """Every stage by its name, such as `train` or `training/conf/dvc.yaml:train@folder`."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


STAGES = stages()


@functools.cache
def settings(*overrides: str) -> Config:
    return load_config(overrides)


def command(stage: PipelineStage) -> tuple[str, Config]:
    """The module that a stage runs, and the settings it gets."""
    words = shlex.split(stage.cmd)
    assert words[:2] == ["python", "-m"]
    return words[2], settings(*words[3:])


def paths(declared: list[Any]) -> set[str]:
    """Files and folders among the dependencies or outputs of a stage."""
    return {Path(each.fs_path).relative_to(ROOT).as_posix() for each in declared if each.fs_path}


@functools.cache
def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@functools.cache
def imports(file: Path) -> set[Path]:
    """Files of this repository that a file imports, inside functions too, and their packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {file_of(name) for name in names}
    packages = {each / "__init__.py" for each in file.relative_to(ROOT).parents}
    files |= {ROOT / each for each in packages if (ROOT / each).is_file()}
    return {each for each in files if each is not None}


def imported(*modules: str) -> set[Path]:
    """Files of this repository that modules import, and those import, and so on."""
    found: set[Path] = set()
    waiting = {file_of(module) for module in modules}
    assert None not in waiting
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting |= imports(file)
    return found


def test_imports_are_followed_through_other_files():
    found = {file.relative_to(ROOT).as_posix() for file in imported("training.train")}
    assert {"model/checkpoint.py", "training/captioner/module.py", "training/__init__.py"} <= found


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_depends_on_all_code_that_its_command_imports(name: str):
    stage = STAGES[name]
    module, config = command(stage)
    modules = [module]
    if module == "training.prepare":  # imports the source that the settings name
        modules.append(f"training.sources.{config.prepare.source}")
    if module == "training.archive":  # runs this file, and packs the handler
        modules += ["training.try_archive", "handler.caption_handler"]
    declared = paths(stage.deps)
    undeclared = [
        file
        for file in (each.relative_to(ROOT).as_posix() for each in imported(*modules))
        if not any(file == each or file.startswith(f"{each}/") for each in declared)
    ]
    assert not undeclared


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_declares_the_paths_of_its_settings(name: str):
    stage = STAGES[name]
    module, config = command(stage)
    data = getattr(config, config.prepare.source).out
    trained = config.train.out
    reads, writes = {
        "training.prepare": (set(), {data}),
        "training.features": ({config.features.data}, {config.features.out}),
        "training.train": (
            {config.train.data, config.train.features},
            {f"{trained}/model.safetensors", f"{config.train.curves}/loss.csv"},
        ),
        "training.quality": (
            {config.quality.data, f"{trained}/model.safetensors"},
            {f"{trained}/quality.safetensors", f"{trained}/quality.json"},
        ),
        "training.ood": (
            {config.ood.data, f"{trained}/model.safetensors"},
            {f"{trained}/ood.safetensors", f"{trained}/ood.json"},
        ),
        "training.evaluate": (
            {
                config.evaluate.data,
                f"{trained}/model.safetensors",
                f"{trained}/ood.safetensors",
                f"{trained}/quality.safetensors",
            },
            {f"{trained}/evaluation.json", f"{config.evaluate.out}/metrics.json"},
        ),
        "training.export": (
            {
                f"{trained}/model.safetensors",
                f"{trained}/ood.safetensors",
                f"{trained}/quality.safetensors",
                f"{trained}/evaluation.json",
            },
            {config.export.out},
        ),
        "training.archive": ({config.export.out}, {config.archive.out}),
    }[module]  # fmt: skip
    if Path(config.features.clip).is_dir() and module in ("training.features", "training.train"):
        reads.add(config.features.clip)
    assert reads <= paths(stage.deps)
    assert writes <= paths(stage.outs)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_parameter_of_a_stage_is_a_setting(name: str):
    for dependency in STAGES[name].deps:
        for key in getattr(dependency, "params", None) or []:
            value = yaml.safe_load(Path(dependency.fs_path).read_text())
            for part in key.split("."):
                assert part in value, f"{dependency}: {key}"
                value = value[part]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_depends_on_its_own_settings(name: str):
    stage = STAGES[name]
    block = command(stage)[0].rpartition(".")[2]
    files = {Path(each.fs_path).name: each.params for each in stage.deps if hasattr(each, "params")}
    experiment = stage.cmd.partition("experiment=")[2]
    assert set(files) == {"config.yaml", *([f"{experiment}.yaml"] if experiment else [])}
    assert all(block in params for params in files.values())


def test_every_experiment_has_every_stage():
    commands = {stage.cmd for stage in STAGES.values()}
    for file in EXPERIMENTS.glob("*.yaml"):
        suffix = "" if file.stem == "scenes" else f" experiment={file.stem}"
        for block in BLOCKS[1:]:
            assert f"python -m training.{block}{suffix}" in commands
    sources = {command(stage)[1].prepare.source for stage in STAGES.values()}
    assert sources == {"scenes", "folder", "coco"}


def test_the_default_pipeline_is_the_one_at_the_top():
    assert [name for name in STAGES if ":" not in name] == list(BLOCKS)


def test_the_model_card_is_not_removed_before_an_evaluation():
    cards = [out for stage in STAGES.values() for out in stage.outs if out.fs_path.endswith(".md")]
    assert len(cards) == len(list(EXPERIMENTS.glob("*.yaml")))
    assert all(card.persist for card in cards)
