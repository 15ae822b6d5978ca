"""The pages in docs/ tell the truth: their own commands are run, in order, on small data.

What would be downloaded is replaced by small models and archives of the same form, and the hours by
one epoch; nothing else of a command is changed. Serving is the integration tests' affair; here a
checkpoint that a page serves must export, which compares it with Hugging Face.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from model.checkpoint import Checkpoint
from model.network.encoder import SiglipEncoder
from tests import ROOT
from tests.caption_forms import FORMS, TARS
from tests.hub_server import TOKEN, add_published, hub_server
from tests.models import save_clip, save_gpt2, save_siglip
from tests.page_blocks import blocks, commands
from training.config import Config, load_config
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder
from training.sweeping.space import read_search

DOCS = ROOT / "docs"
#: This file, as the marks of the pages name it.
HERE = "tests/unit/test_pages.py"
Run = Callable[..., list[list[str]]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stand-ins for the models that have names."""
    folder = tmp_path_factory.mktemp("bases")
    clip, gpt2 = save_clip(folder / "clip"), save_gpt2(folder / "gpt2", positions=128)
    return {"features.clip": str(clip), "clip.base": str(clip), "train.gpt2.base": str(gpt2)}


@pytest.fixture
def run(bases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a page in a folder of its own; returns the words of what was run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "training.evaluation.scores.scoring._meteor", lambda *_: 0.0
    )  # seconds each to start
    small = {**bases, "train.epochs": "1", "clip.epochs": "1", "clip.precision": "32-true"}
    workers = {
        f"{block}.workers": "0" for block in ("folder", "features", "quality", "ood", "evaluate")
    }

    def start(page: str, more: Sequence[str] = ()) -> list[list[str]]:
        lines = commands(DOCS / page, HERE)
        for words in lines:
            if words[:2] == [".venv/bin/python", "-m"]:
                given = {word.partition("=")[0] for word in words}
                plain = words[2] in ("model.pretrained.published", "training.publish")
                added = {} if plain else {**small, **workers}
                settings = [f"{key}={value}" for key, value in added.items() if key not in given]
                monkeypatch.setattr(sys, "argv", [words[2], *words[3:], *settings, *more])
                importlib.import_module(words[2]).main()
            elif words[:2] == ["make", "serve"]:
                kind, checkpoint = words[2].split("=")
                if kind == "MODEL":
                    name, checkpoint = checkpoint, f"models/{checkpoint}"
                    monkeypatch.setattr(sys, "argv", ["published", name, "--out", checkpoint])
                    importlib.import_module("model.pretrained.published").main()
                built = ["--checkpoint", checkpoint, "--out", str(tmp_path / "artifact")]
                monkeypatch.setattr(sys, "argv", ["training.export", *built])
                importlib.import_module("training.export").main()
            elif words[0] == "cat":
                assert all(Path(file).is_file() for file in words[1:])
            else:
                known = ("curl", ".venv/bin/pip")
                assert words[0] in known, words
        return lines

    return start


@pytest.fixture
def holiday(tiny_scenes: Path, tmp_path: Path) -> CaptionDataset:
    """A folder as people have it, of drawn pictures."""
    scenes = CaptionDataset.load(tiny_scenes)
    shutil.copytree(tiny_scenes / "images", tmp_path / "holiday" / "images")
    with (tmp_path / "holiday" / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption"])
        for image_id, captions in scenes.captions.items():
            table.writerows([scenes.files[image_id].name, caption] for caption in captions)
    return scenes


def test_your_pictures(run: Run, holiday: CaptionDataset):
    run("your-pictures.md")
    data = CaptionDataset.load("data/mine")
    assert len(data.files) == len(holiday.files)
    assert not list(Path("data/mine/images").glob("images"))
    assert "<img" in Path("reports/mine/captions.html").read_text()
    assert set(json.loads(Path("reports/mine/metrics.json").read_text())) >= {"test"}
    card = ModelCard.load("models/mine/README.md")
    assert card.data.eval_results[0].dataset_name == "pictures of holiday"
    assert "were not counted" in card.text


#: Folder in data-sets.md -> the form that is made in it.
FOLDERS = {
    "holiday": "CSV",
    "columns": "CSV with several columns",
    "lines": "JSON lines",
    "object": "JSON mapping",
    "lora": "text beside",
    "lora-caption": "text beside, .caption",
    "beside": "text beside, one a line",
    "cc3m": "img2dataset files",
    "cc3m-parquet": "img2dataset Parquet",
    "image-folder": "image folder, CSV",
    "image-folder-jsonl": "image folder, JSON lines",
    "image-folder-parquet": "image folder, Parquet",
    "hub": "Parquet with pictures",
    "saved": "save_to_disk",
    "flickr8k": "Flickr8k",
    "flickr8k-token": "Flickr8k token",
    "flickr30k": "Flickr30k",
    "flickr30k-token": "Flickr30k token",
    "karpathy-coco": "Karpathy's JSON for COCO",
    "karpathy-flickr8k": "Karpathy's JSON for Flickr8k",
    "karpathy-flickr30k": "Karpathy's JSON for Flickr30k",
    "blip": "BLIP",
    "clipcap": "ClipCap",
    "coco": "COCO in several files",
    "vizwiz": "VizWiz",
    "nocaps": "nocaps",
    "textcaps": "TextCaps",
    "shards": "WebDataset",
    "cc3m-tar": "img2dataset",
    "dots": "dots in keys",
    "edits": "two pictures",
    "named": "a split in each name",
}
#: The settings in the last column of its tables.
ROWS = re.findall(
    r"\| `((?:folder|prepare)\.[^`]+)` \|$", (ROOT / "docs/data-sets.md").read_text(), re.M
)


def test_data_sets_names_every_form():
    named = re.findall(r"(?:folder.path|webdataset.shards)=([\w-]+)", " ".join(ROWS))
    assert named == list(FOLDERS)
    assert set(FOLDERS.values()) == {*FORMS, *TARS}


@pytest.mark.parametrize("row", ROWS)
def test_data_sets(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    given = shlex.split(row)
    values = dict(word.split("=", 1) for word in given)
    folder = Path(values.get("folder.path") or values["webdataset.shards"])
    made = {**FORMS, **TARS}[FOLDERS[str(folder)]](folder)
    block = values.get("prepare.source", "folder")
    first = ["experiment=folder"] if block == "folder" else []
    # So few pictures would not fill three splits.
    few = [f"{block}.fractions={{train: 1, val: 0, test: 0}}", f"{block}.workers=0"]
    monkeypatch.setattr(sys, "argv", ["training.prepare", *first, *given, *few, "--out", "made"])
    importlib.import_module("training.prepare").main()
    data = CaptionDataset.load("made")
    assert sorted(data.captions.values()) == sorted(made.captions.values())
    assert {name for name, ids in data.splits.items() if ids} == (
        set(made.splits.values()) or {"train"}
    )


def test_data_sets_are_looked_at(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    FORMS["CSV"](tmp_path / "holiday")
    with (tmp_path / "holiday" / "captions.csv").open("a") as file:
        file.write("none.png,a bird\nIMG_0412.png,ein Floß\n")
    before = sorted(tmp_path.rglob("*"))
    run("data-sets.md")
    said = capsys.readouterr().out
    assert "recognised table of captions: captions.csv\npictures: 2 in the folder, 2 of" in said
    assert "captions: 3; 1 to 2 for each picture" in said
    assert "letters: Latin 100%" in said
    assert "faults: 1 fault\n  captions.csv line 4: none.png is missing" in said
    assert "training.prepare folder.path=holiday experiment=folder folder.on_broken=skip" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("holiday")
def test_training(run: Run, capsys: pytest.CaptureFixture[str]):
    run("training.md")
    record = Checkpoint.load("models/mine").training
    assert record is not None
    assert (record["schedule"], record["ema"], record["epochs"]) == ("cosine", 0.999, 1)
    assert capsys.readouterr().err.count("note: epoch 1 of 1 is kept") == 2


def test_evaluation(
    run: Run, tiny_scenes: Path, tiny_run: Config, bases: dict[str, str], tmp_path: Path
):
    for name in ("mine", "coco"):
        shutil.copytree(tiny_scenes, f"data/{name}")
    shutil.copytree(tiny_run.train.out, "models/mine")
    shutil.copytree(bases["clip.base"], "clip")
    FORMS["nocaps"](tmp_path / "nocaps")
    ids = list(CaptionDataset.load("data/coco").ids("test"))
    captions = [{"image_id": str(i), "caption": "a zebra"} for i in ids]
    Path("theirs.json").write_text(json.dumps(captions))
    Path("annotations").mkdir()
    objects = (ROOT / "training/evaluation/scores/coco_objects.txt").read_text().splitlines()
    instances = {
        "images": [{"id": i} for i in ids],
        "annotations": [],
        "categories": [{"id": n, "name": own.split(",")[0]} for n, own in enumerate(objects)],
    }
    Path("annotations/instances_val2014.json").write_text(json.dumps(instances))
    run("evaluation.md")
    ours = json.loads(Path("data/mine/report/metrics.json").read_text())
    assert ours["clip"] == "clip"
    assert set(json.loads(Path("data/nocaps/report/metrics.json").read_text())) >= {
        *("test_in_domain", "test_near_domain", "test_out_domain", "overall"),
    }
    theirs = json.loads(Path("theirs-report/metrics.json").read_text())  # of the last command
    assert theirs["test"]["CHAIR_i"] == theirs["test"]["CHAIR_s"] == 1.0


@pytest.mark.usefixtures("holiday")
def test_fine_tune_clip(run: Run, bases: dict[str, str]):
    run("fine-tune-clip.md")
    folders = [bases["clip.base"], *(f"build/mine/{n}/model" for n in ("clip-before", "clip"))]
    weights = [flat(Encoder(folder).model) for folder in folders]
    assert torch.equal(weights[0], weights[1])  # measured, not trained
    assert not torch.equal(weights[1], weights[2])
    clip = Checkpoint.load("models/mine").captioner.clip
    assert clip is not None
    assert torch.equal(flat(clip), weights[2])


def flat(model: nn.Module) -> torch.Tensor:
    """All weights of a model in one row."""
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


@pytest.mark.usefixtures("holiday")
def test_published_weights(
    run: Run, gpt2_tokenizer: Path, bases: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, tiny_scenes: Path,
):  # fmt: skip
    shutil.copytree(bases["features.clip"], "clip")
    shutil.copytree(gpt2_tokenizer, "gpt2")
    Path("data").mkdir()
    shutil.copytree(tiny_scenes, "data/mine")
    with hub_server(tmp_path / "cache", monkeypatch) as hub:
        add_published(hub, tmp_path / "hub", Path("clip"), Path("gpt2"), monkeypatch)
        shutil.copy("hub/coco_weights.pt", ".")
        run("published-weights.md")
    card = ModelCard.load("models/coco/README.md")
    assert card.text.startswith("# Image captioner from `coco_weights.pt`")
    assert card.data.eval_results[0].dataset_split == "test"
    assert Path("data/mine/report/captions.html").exists()
    assert Path("models/coco.lock.json").exists()
    assert Path("models/by-hand/model.safetensors").exists()


def test_encoders(run: Run, tiny_scenes: Path):
    shutil.copytree(tiny_scenes, "data/mine")
    # Folders of these names come before the hub.
    save_siglip(Path("google/siglip2-so400m-patch14-384"))
    save_gpt2(Path("distilgpt2"), positions=128)
    run("encoders.md")
    captioner = Checkpoint.load("models/mine").captioner
    assert isinstance(captioner.clip, SiglipEncoder)


def test_hub(
    run: Run, tiny_run: Config, tiny_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tiny_scenes, "data/mine")
    shutil.copytree(tiny_run.train.out, "models/mine")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server(tmp_path / "cache", monkeypatch) as hub:
        run("hub.md")
        sent = hub.contents["anna/birds"]["main"]
    for file in Path("models/mine").iterdir():
        assert file.name == "README.md" or sent[file.name] == file.read_bytes()
    assert ModelCard(sent["README.md"].decode()).data.license == "cc-by-4.0"
    record = Checkpoint.load("models/mine-2").training
    assert record is not None
    assert record["started_from"] == "anna/birds@main"


@pytest.mark.usefixtures("holiday")
def test_the_page_that_leads_to_the_others(run: Run):
    run("train.md", ["train.epochs=1"])
    assert Checkpoint.load("models/mine").captioner.config
    assert "test" in json.loads(Path("reports/mine/metrics.json").read_text())


@pytest.mark.usefixtures("holiday")
def test_captions_alone(run: Run, monkeypatch: pytest.MonkeyPatch):
    prepare = ["training.prepare", "experiment=folder", "folder.path=holiday", "folder.workers=0"]
    monkeypatch.setattr(sys, "argv", prepare)
    importlib.import_module("training.prepare").main()
    shutil.rmtree("data/mine/images")  # as the page says, none is needed
    run("captions-alone.md")
    record = Checkpoint.load("models/mine").training
    assert record is not None
    assert record["text_noise"] == 0.08
    for block in blocks(DOCS / "captions-alone.md", "sh"):
        for words in map(shlex.split, block.lines):
            load_config(words[3:])


def test_training_runs_names_settings_that_there_are():
    lines = [line for block in blocks(DOCS / "training-runs.md", "sh") for line in block.lines]
    for words in map(shlex.split, lines):
        if words[0] == ".venv/bin/pip":
            continue
        assert words[:2] == [".venv/bin/python", "-m"]
        read = read_search if words[2] == "training.sweep" else load_config
        read(words[3:])
        assert importlib.util.find_spec(words[2])


def test_coco(run: Run, tiny_scenes: Path):
    put_archives(Path("data/coco-archives"), CaptionDataset.load(tiny_scenes))
    run("coco.md", ["coco.sha256={train2014: null, val2014: null, caption_datasets: null}"])
    assert CaptionDataset.load("data/coco").splits.keys() == {"train", "val", "test"}
    for name, kind in (("coco-mlp", "mlp"), ("coco-transformer", "transformer")):
        assert Checkpoint.load(f"models/{name}").captioner.config.mapper.kind == kind
        figures = json.loads(Path(f"reports/{name}/metrics.json").read_text())
        identity = {"weights_sha256", "data_set", "captions_sha256"}
        identity |= {"tokenizer", "references", "seen_in_training"}
        assert set(figures) == {"test", "precisions", *identity}


def put_archives(folder: Path, scenes: CaptionDataset) -> None:
    """COCO's three archives, with drawn pictures."""
    folder.mkdir(parents=True)
    images = []
    archives = {n: zipfile.ZipFile(folder / f"{n}.zip", "w") for n in ("train2014", "val2014")}
    for split, ids in scenes.splits.items():
        place = "train2014" if split == "train" else "val2014"
        for i in ids:
            name = f"COCO_{place}_{i:012d}.jpg"
            archives[place].write(scenes.files[i], f"{place}/{name}")
            sentences = [{"raw": caption} for caption in scenes.captions[i]]
            split_name = {"compositional": "restval"}.get(split, split)
            images.append({"filepath": place, "filename": name, "cocoid": i, "split": split_name,
                           "sentences": sentences})  # fmt: skip
    for archive in archives.values():
        archive.close()
    with zipfile.ZipFile(folder / "caption_datasets.zip", "w") as archive:
        archive.writestr("dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))
