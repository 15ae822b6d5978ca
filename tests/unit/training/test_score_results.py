"""A file of anybody's captions is scored as our own; parts of a test set, each and together."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
from pycocoevalcap.cider.cider import Cider

import training.evaluate
from model.refusal import Refusal
from tests.caption_forms import nocaps
from training.config import Config, Evaluate
from training.data.dataset import CaptionDataset, Picture, write_index
from training.evaluate import read_settings
from training.evaluation.evaluate import evaluate
from training.evaluation.score_results import score_results
from training.evaluation.scores.domains import scored_splits

#: Captions of three pictures in each of two domains, so that words have weights.
PARTS = {
    "test_in_domain": {1: "a dog runs", 2: "a red boat", 3: "two cows"},
    "test_out_domain": {4: "a dog sits", 5: "an old lamp", 6: "one owl"},
}


@pytest.fixture(autouse=True)
def _no_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    # METEOR takes seconds to start.
    monkeypatch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.5)


@pytest.fixture(scope="module")
def checkpoint(tiny_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(
        tiny_run.evaluate.checkpoint, tmp_path_factory.mktemp("own") / "checkpoint"
    )


@pytest.fixture
def settings(tiny_run: Config, checkpoint: Path, tmp_path: Path) -> Evaluate:
    return dataclasses.replace(
        tiny_run.evaluate, checkpoint=str(checkpoint), out=str(tmp_path / "own"), gate_images=0
    )


def read(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_our_own_captions_from_a_file_get_the_scores_of_the_evaluation(
    settings: Evaluate, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = dataclasses.replace(settings, clip=str(tiny_clip))
    evaluate(settings)
    ours = read(tmp_path / "own")
    card = (Path(settings.checkpoint) / "README.md").read_text()
    both = tmp_path / "both.json"
    files = [tmp_path / "own" / f"results_{split}.json" for split in settings.splits]
    entries = [each for file in files for each in json.loads(file.read_text())]
    both.write_text(json.dumps([{**e, "image_id": str(e["image_id"])} for e in entries]))
    words = ["training.evaluate", "--results", str(both), "--data", settings.data]
    more = ["evaluate.workers=0", f"evaluate.clip={tiny_clip}", "evaluate.allow_empty=true"]
    monkeypatch.setattr(sys, "argv", [*words, *more])
    training.evaluate.main()
    theirs = read(tmp_path / "both-report")
    for split in settings.splits:
        # All but what needs the captioner: its choice between a true and a false caption.
        wanted = {k: v for k, v in ours[split].items() if "choice" not in k}
        assert {"CIDEr", "METEOR", "CLIPScore", "RefCLIPScore", "precision"} <= set(wanted)
        assert theirs[split] == wanted
    for key in ("tokenizer", "references", "captions_sha256", "clip"):
        assert theirs[key] == ours[key]
    assert ours["clip"] == str(tiny_clip)
    assert (tmp_path / "both-report" / "captions.html").exists()
    assert (Path(settings.checkpoint) / "README.md").read_text() == card
    lines = (tmp_path / "own" / "captions.jsonl").read_text().splitlines()
    assert {"CLIPScore", "RefCLIPScore", "CIDEr"} <= set(json.loads(lines[0]))


def test_the_tokenizer_and_the_number_of_references_stand_beside_every_cider(
    settings: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset = CaptionDataset.load(settings.data)
    evaluate(dataclasses.replace(settings, splits=["test"]))
    counts = [len(dataset.captions[i]) for i in dataset.ids("test")]
    fewest, most = min(counts), max(counts)
    metrics = read(tmp_path / "own")
    assert metrics["tokenizer"] == "PTB"
    assert metrics["references"] == {
        "test": {"pictures": len(counts), "fewest": fewest, "most": most}
    }
    assert fewest == most == 5  # of drawn scenes
    assert (
        f"{len(counts)} pictures. CIDEr: PTB, 5 references."
        in (tmp_path / "own" / "captions.html").read_text()
    )
    card = (Path(settings.checkpoint) / "README.md").read_text()
    assert "| CIDEr's tokenizer, references | PTB, 5 references |" in card
    assert "PTB, 5 references" in capsys.readouterr().out


def test_the_report_of_a_file_lies_beside_it():
    assert read_settings(["--results", "theirs/b.json"])[0].out == "theirs/b-report"
    assert read_settings(["evaluate.results=theirs/b.json"])[0].out == "theirs/b-report"
    assert read_settings(["--results", "b.json", "--out", "here"])[0].out == "here"


def parts(folder: Path) -> CaptionDataset:
    """A data set of two domains; every picture has its caption and "a thing"."""
    folder.mkdir()
    pictures = [
        Picture(i, f"{i}.jpg", [text, "a thing"], split)
        for split, own in PARTS.items()
        for i, text in own.items()
    ]
    write_index(folder, "", pictures)
    return CaptionDataset.load(folder)


def test_domains_are_scored_each_and_together(settings: Evaluate, tmp_path: Path):
    dataset = parts(tmp_path / "domains")
    generated = {1: "a dog runs", 2: "a thing", 3: "two", 4: "a dog", 5: "a lamp", 6: "one owl"}
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps([{"image_id": i, "caption": c} for i, c in generated.items()]))
    found = score_results(
        dataclasses.replace(
            settings, data=str(dataset.root), results=str(file), splits=["test"], page_images=0
        )
    )
    assert list(found) == ["test_in_domain", "test_out_domain", "overall"]

    def by_hand(ids: list[int]) -> float:
        return Cider().compute_score(
            {i: dataset.captions[i] for i in ids}, {i: [generated[i]] for i in ids}
        )[0]

    # The words of each part are weighed by its own references, so overall is no mean of the two.
    own = [by_hand([1, 2, 3]), by_hand([4, 5, 6])]
    assert found["test_in_domain"]["CIDEr"] == pytest.approx(own[0])
    assert found["test_out_domain"]["CIDEr"] == pytest.approx(own[1])
    assert found["overall"]["CIDEr"] == pytest.approx(by_hand([1, 2, 3, 4, 5, 6]))
    assert found["overall"]["CIDEr"] != pytest.approx(sum(own) / 2, rel=0.01)
    # ROUGE-L is a mean over pictures, so overall, of two parts of the same size, it is one.
    rouge = [found[part]["ROUGE_L"] for part in PARTS]
    assert found["overall"]["ROUGE_L"] == pytest.approx(sum(rouge) / 2)
    # SPICE is there wherever it can run, and otherwise a note says why not.
    page = (tmp_path / "own" / "captions.html").read_text()
    assert all(("SPICE" in figures) != ("SPICE left out" in page) for figures in found.values())
    assert read(tmp_path / "own")["references"]["overall"] == {
        "pictures": 6,
        "fewest": 2,
        "most": 2,
    }
    assert len((tmp_path / "own" / "captions.jsonl").read_text().splitlines()) == 6


def test_a_captioner_is_evaluated_on_nocaps_by_domain(
    settings: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nocaps(tmp_path / "nocaps")
    made = ["prepare.source=folder", f"folder.path={tmp_path / 'nocaps'}", "folder.workers=0"]
    monkeypatch.setattr(sys, "argv", ["prepare", *made, "--out", str(tmp_path / "data")])
    training.prepare.main()
    found = evaluate(
        dataclasses.replace(settings, data=str(tmp_path / "data"), splits=["test"]), own=False
    )
    domains = [f"test_{name}_domain" for name in ("in", "near", "out")]
    assert sorted(found) == sorted([*domains, "overall"])
    assert all("CIDEr" in figures for figures in found.values())
    card = (Path(settings.checkpoint) / "README.md").read_text()
    assert "overall 3" in card
    assert {f"results_{name}.json" for name in domains} <= {
        file.name for file in (tmp_path / "own").iterdir()
    }
    assert not (tmp_path / "own" / "results_overall.json").exists()


def test_which_splits_are_scored(tmp_path: Path):
    dataset = parts(tmp_path / "domains")
    assert scored_splits(dataset, ["test", "compositional"]) == list(PARTS)
    assert scored_splits(dataset, ["test_out_domain", "test"]) == list(PARTS)[::-1]
    assert scored_splits(dataset, ["test_out_domain"]) == ["test_out_domain"]
    with pytest.raises(Refusal, match="none of the splits val; it has test_in_domain, test_out_d"):
        scored_splits(dataset, ["val"])


def test_chair_without_instances_of_the_pictures_is_refused_before_captions(
    settings: Evaluate, tmp_path: Path
):
    file = tmp_path / "instances.json"
    person = [{"id": 1, "name": "person"}]
    file.write_text(json.dumps({"images": [{"id": -1}], "annotations": [], "categories": person}))
    with pytest.raises(Refusal, match="CHAIR needs the objects of every picture"):
        evaluate(dataclasses.replace(settings, instances=str(file)))
    assert not (tmp_path / "own").exists()


def test_chair_is_in_every_report(settings: Evaluate, tmp_path: Path):
    dataset = CaptionDataset.load(settings.data)
    ids = list(dataset.ids("test"))
    file = tmp_path / "instances.json"
    names = Path("training/evaluation/scores/coco_objects.txt").read_text().splitlines()
    content = {
        "images": [{"id": i, "file_name": dataset.files[i].name} for i in ids],
        "annotations": [{"image_id": i, "category_id": 1} for i in ids],
        "categories": [{"id": n, "name": own.split(",")[0]} for n, own in enumerate(names, 1)],
    }
    file.write_text(json.dumps(content))
    captions = {i: "a person" for i in ids}
    captions[ids[0]] = "a person and a zebra"  # no scene has a zebra
    results = tmp_path / "theirs.json"
    results.write_text(json.dumps([{"image_id": i, "caption": c} for i, c in captions.items()]))
    found = score_results(
        dataclasses.replace(
            settings, instances=str(file), results=str(results), splits=["test"], page_images=0
        )
    )
    # One of N + 1 mentions, in one of N captions.
    assert found["test"]["CHAIR_i"] == pytest.approx(1 / (len(ids) + 1))
    assert found["test"]["CHAIR_s"] == pytest.approx(1 / len(ids))
    page = (tmp_path / "own" / "captions.html").read_text()
    assert "CHAIR, of mentions" in page
    assert read(tmp_path / "own")["objects"] == "coco_objects.txt"
    line = json.loads((tmp_path / "own" / "captions.jsonl").read_text().splitlines()[0])
    assert line["not_in_picture"] == ["zebra"]
