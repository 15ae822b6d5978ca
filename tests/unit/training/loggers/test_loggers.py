"""A training that all loggers record, interrupted and resumed; then each is read back."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from model.refusal import Refusal
from tests import ROOT
from tests.interruption import power_cut
from tests.unit.training.loggers.wandb_server import wandb_server
from training.captioner.train import train
from training.config import Config, Loggers, load_config
from training.contrastive.train import train_clip
from training.data.dataset import CaptionDataset
from training.loggers.packages import check_loggers
from training.loggers.provenance import provenance
from training.loggers.recorder import RunRecorder
from training.loggers.run import Identity
from training.loggers.samples import SIDE

INSTALLED = [name for name in ("wandb", "tensorboard", "mlflow") if importlib.util.find_spec(name)]
#: 5 optimiser steps an epoch; the run is cut in the second of two.
CUT_AT, STEPS = 7, 10


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"the extra {name} is not installed"
    return pytest.mark.skipif(name not in INSTALLED, reason=reason)


@dataclasses.dataclass
class Recorded:
    """A run, and what is known of it without a logger."""

    config: Config
    val_ids: list[int]

    @property
    def folder(self) -> Path:
        return Path(self.config.loggers.folder)


@pytest.fixture(scope="module")
def recorded(tiny_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    loggers = Loggers(
        folder=str(folder / "runs"), project="tiny", run="evening", pictures=3, checkpoint=True,
        wandb="offline", mlflow=None,
    )  # fmt: skip
    settings = dataclasses.replace(
        tiny_run.train,
        out=str(folder / "checkpoint"),
        work=str(folder / "work"),
        curves=str(folder / "curves"),
        loggers=INSTALLED,
        trainer={**tiny_run.train.trainer, "log_every_n_steps": 1},
    )
    config = dataclasses.replace(tiny_run, train=settings, loggers=loggers)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder / "of-wandb"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        scores = iter([0.25, 0.5])
        patch.setattr("training.captioner.train.cider", lambda *_: next(scores))
        with power_cut(patch, at=CUT_AT):
            train(config)
        again = dataclasses.replace(settings, resume=True)
        train(dataclasses.replace(config, train=again))
        ids = list(CaptionDataset.load(settings.data).ids("val"))
        yield Recorded(config, ids)


def check_described(values: dict[str, Any], recorded: Recorded) -> None:
    """What a run was made from, as a logger has it."""
    assert str(values["train.epochs"]) == "2"
    assert str(values["train.mapper.kind"]) == "linear"
    assert values["train.data"] == recorded.config.train.data
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    assert values["git.commit"] == (commit or "unknown")
    assert str(values["git.modified"]).lower() in ("true", "false", "unknown")
    assert {len(values[f"SHA-256 of {n}"]) for n in ("captions.json", "split.json")} == {64}


@needs("wandb")
def test_wandb_offline_read_back(recorded: Recorded):
    from tests.unit.training.loggers.wandb_file import read_records

    folders = sorted((recorded.folder / "wandb").glob("offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1  # one id
    assert len(folders) == 2
    history: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    artifacts, exits = [], []
    for folder in folders:
        for record in read_records(next(folder.glob("*.wandb"))):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                items = record.history.item
                history.append(
                    {
                        item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in items
                    }
                )
            elif kind in ("run", "config"):
                update = record.run.config.update if kind == "run" else record.config.update
                config |= {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in update
                }
            elif kind == "artifact":
                artifacts.append(record.artifact)
            elif kind == "exit":
                exits.append(record.exit.exit_code)
    check_described(config, recorded)
    assert exits == [1, 0]
    step = "trainer/global_step"
    assert {row[step] for row in history if "train_loss" in row} >= set(range(STEPS))
    rates = {row[step]: row["learning_rate"] for row in history if "learning_rate" in row}
    assert rates[9] < rates[1]
    assert [row["val_CIDEr"] for row in history if "val_CIDEr" in row] == [0.25, 0.5]
    assert all("val_loss" in row for row in history if "val_CIDEr" in row)
    tables = [row for row in history if "captions.nrows" in row]
    assert [row["captions.nrows"] for row in tables] == [3, 3]
    (first, *_) = [each for each in artifacts if each.type == "run_table"]
    files = {entry.path: Path(entry.local_path) for entry in first.manifest.contents}
    table = json.loads(files["captions.table.json"].read_text())
    assert table["columns"] == ["id", "picture", "caption", "references"]
    assert {row[0] for row in table["data"]} <= set(recorded.val_ids)
    for row in table["data"]:
        with Image.open(files[row[1]["path"]]) as picture:
            assert max(picture.size) <= SIDE
    (artifact,) = [each for each in artifacts if each.type == "model"]
    assert "model.safetensors" in {entry.path for entry in artifact.manifest.contents}


@needs("tensorboard")
def test_tensorboard_read_back(recorded: Recorded):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (recorded.folder / "tensorboard").iterdir()
    assert folder.name == "evening"
    found = EventAccumulator(str(folder), {"images": 0, "tensors": 0, "scalars": 0}).Reload()
    assert {event.step for event in found.Scalars("train_loss")} >= set(range(STEPS))
    assert [round(each.value, 3) for each in found.Scalars("val_CIDEr")] == [0.25, 0.5]
    rates = {event.step: event.value for event in found.Scalars("learning_rate")}
    assert rates[9] < rates[1]
    assert found.Scalars("val_loss")
    pictures = found.Images("captions")
    assert [each.step for each in pictures] == [5, 10]
    assert pictures[0].width == 3 * SIDE

    def texts(tag: str) -> list[str]:
        return [e.tensor_proto.string_val[0].decode() for e in found.Tensors(f"{tag}/text_summary")]

    assert texts("captions")[0].count("\n") == 4  # head, line, three pictures
    settings = yaml.safe_load("\n".join(line[4:] for line in texts("settings")[-1].splitlines()))
    assert settings["train"]["epochs"] == 2
    assert "model.safetensors" in texts("checkpoint")[0]
    described = yaml.safe_load((folder / "hparams.yaml").read_text())
    check_described(described, recorded)


@needs("mlflow")
def test_mlflow_in_sqlite_read_back(recorded: Recorded):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{recorded.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "evening"
    check_described(run.data.params, recorded)

    def metric(name: str) -> dict[int, float]:
        return {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}

    assert set(metric("train_loss")) >= set(range(STEPS))
    assert list(metric("val_CIDEr").values()) == [0.25, 0.5]
    assert metric("learning_rate")[9] < metric("learning_rate")[1]
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    table = json.loads((root / "captions.json").read_text())
    columns = table["columns"]
    assert [row[columns.index("step")] for row in table["data"]] == [5] * 3 + [10] * 3
    assert {row[columns.index("id")] for row in table["data"]} <= set(recorded.val_ids)
    assert yaml.safe_load((root / "settings.yaml").read_text())["loggers"]["project"] == "tiny"
    kept = (root / "checkpoint" / "model.safetensors").read_bytes()
    assert kept == (Path(recorded.config.train.out) / "model.safetensors").read_bytes()


def test_the_csv_log_is_always_there(recorded: Recorded):
    curve = (Path(recorded.config.train.curves) / "validation.csv").read_text().splitlines()
    assert len(curve) == 3


def test_a_logger_without_its_package_is_refused_before_the_data_are_read(
    tiny_run: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else name)
    settings = dataclasses.replace(tiny_run.train, loggers=["mlflow"], data="nowhere")
    with pytest.raises(
        Refusal,
        match=r"^train.loggers names mlflow, but the package is not installed; run: pip install "
        r"-c constraints.txt -e '\.\[mlflow\]'$",
    ):
        train(dataclasses.replace(tiny_run, train=settings))


@needs("wandb")
def test_wandb_online_needs_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import wandb

    wandb.teardown()  # it keeps the server and the key that it saw first
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    settings = load_config().loggers
    with pytest.raises(Refusal, match=r"no key of W&B; run: wandb login, or set WANDB_API_KEY"):
        check_loggers(["wandb"], settings, "train.loggers")
    check_loggers(["wandb"], dataclasses.replace(settings, wandb="offline"), "train.loggers")


@pytest.mark.parametrize("names", ["[comet]", "[wandb,wandb]"])
def test_names_that_are_no_loggers_are_refused(names: str):
    with pytest.raises(Refusal, match="it must be a list of wandb, tensorboard or mlflow, each at"):
        load_config([f"train.loggers={names}"])


def test_a_run_has_a_name_of_its_own_unless_it_is_resumed(tmp_path: Path):
    file = tmp_path / "run.json"
    first = Identity.of(file, None, resume=False)
    assert first.name.startswith("run-")
    first.ids["wandb"] = "abc"
    first.save(file)
    assert Identity.of(file, "other", resume=True) == first
    assert Identity.of(file, "other", resume=False) == Identity("other")


def test_the_commit_and_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("training.loggers.provenance.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance({}, {})["git.commit"] == "unknown"
    who = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    (tmp_path / "code.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    found = provenance({"train": {"epochs": 1}}, {"SHA-256 of x": "0", "train.epochs": 1})
    assert found.pop("git.commit") not in ("", "unknown")
    assert found == {"train.epochs": 1, "git.modified": False, "SHA-256 of x": "0"}
    (tmp_path / "code.py").write_text("2\n")
    assert provenance({}, {})["git.modified"] is True


def test_only_the_first_of_several_processes_records(
    tiny_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    recorder = RunRecorder({}, tiny_run.loggers, ["wandb", "mlflow"], {})
    (logger,) = recorder.loggers(tmp_path, tmp_path / "run.json", resume=False)
    assert isinstance(logger, CSVLogger)
    assert not (tmp_path / "run.json").exists()


@needs("tensorboard")
def test_a_training_of_clip_is_recorded_too(tiny_scenes: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = "{width: 32, layers: 1, heads: 2, patch: 16, image_size: 32, text_layers: 1,"
    sizes += " text_width: 32, max_text: 24, projection: 16, vocabulary: 300}"
    config = load_config(
        [
            *(f"clip.data={tiny_scenes}", f"clip.out={tmp_path / 'clip'}", f"clip.model={sizes}"),
            *("clip.epochs=1", "clip.batch_size=16", "clip.caption_weight=0"),
            *("clip.captioner.pair_prior=[]", "clip.shift=0", "clip.precision=32-true"),
            *("clip.loggers=[tensorboard]", f"loggers.folder={tmp_path / 'runs'}"),
        ]
    )
    train_clip(config.clip, config.loggers)
    (folder,) = (tmp_path / "runs" / "tensorboard").iterdir()
    found = EventAccumulator(str(folder)).Reload()
    assert any(tag.endswith("R@5") for tag in found.Tags()["scalars"])
    assert "checkpoint/text_summary" in found.Tags()["tensors"]
    described = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert described["clip.epochs"] == 1
    assert len(described["SHA-256 of captions.json"]) == 64


@needs("wandb")
def test_wandb_online_sends_the_run(
    tiny_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "of-wandb"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: 0.75)
    places = {name: str(tmp_path / name) for name in ("out", "work", "curves")}
    settings = dataclasses.replace(tiny_run.train, **places, epochs=1, loggers=["wandb"])
    loggers = dataclasses.replace(
        tiny_run.loggers, folder=str(tmp_path / "runs"), run="morning", pictures=0, checkpoint=False
    )
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        wandb.teardown()  # it keeps the server that it saw first
        train(dataclasses.replace(tiny_run, train=settings, loggers=loggers))
        assert server.runs[0]["displayName"] == "morning"
        config = json.loads(server.runs[-1]["config"])
        values = {key: each["value"] for key, each in config.items() if key != "_wandb"}
        assert values["train.epochs"] == 1
        assert len(values["git.commit"]) >= len("unknown")
        assert [row["val_CIDEr"] for row in server.lines if "val_CIDEr" in row] == [0.75]
        assert "wandb-summary.json" in server.files
        wandb.teardown()
    (identity,) = (tmp_path / "work" / "log").glob("run.json")
    assert json.loads(identity.read_text())["ids"]["wandb"] == server.runs[0]["name"]
