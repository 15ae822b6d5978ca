"""Evaluation, small but whole: figures, page and captions, or a refusal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from model.checkpoint import Checkpoint, read_evaluation, weights_sha256
from model.export import eager_artifact
from model.refusal import Refusal
from training.config import Config
from training.data.dataset import CaptionDataset
from training.evaluate import read_settings
from training.evaluation.captioning import caption_split
from training.evaluation.evaluate import evaluate, keep_evaluation
from training.evaluation.scores.forced_choice import choices, log_probabilities
from training.scenes import Scene
from training.scenes.language.accuracy import SceneAccuracy


@pytest.fixture(scope="module")
def reports(tiny_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one evaluation of both splits wrote."""
    out = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.evaluation.scores.scoring._meteor", lambda *_: 0.5
        )  # ten seconds, and tested there
        figures = evaluate(dataclasses.replace(tiny_run.evaluate, out=str(out)))
    assert list(figures) == ["test", "compositional"]
    return out


def test_metrics_hold_scores_and_scene_accuracy_of_each_split(reports: Path, tiny_run: Config):
    metrics = json.loads((reports / "metrics.json").read_text())
    assert set(metrics) == {
        *("test", "compositional", "precisions"),
        *("weights_sha256", "data_set", "captions_sha256"),
        *("tokenizer", "references", "seen_in_training"),
    }
    assert metrics["tokenizer"] == "PTB"
    unseen = {"train": 0, "val": 0}
    assert metrics["seen_in_training"] == {"test": unseen, "compositional": unseen}
    assert metrics["data_set"] == "scenes"
    captions = Path(tiny_run.evaluate.data, "captions.json").read_bytes()
    assert metrics["captions_sha256"] == hashlib.sha256(captions).hexdigest()
    exact = metrics["precisions"]["fp32"]
    assert exact["same"] == 1
    assert exact["cider_change"] == 0
    assert exact["passes"]
    assert metrics["weights_sha256"] == weights_sha256(tiny_run.evaluate.checkpoint)
    own = Path(tiny_run.evaluate.checkpoint, "evaluation.json")
    assert own.read_text() == (reports / "metrics.json").read_text()
    for split in ("test", "compositional"):
        names = {f"BLEU_{n}" for n in (1, 2, 3, 4)} | {"METEOR", "ROUGE_L", "CIDEr", "human_CIDEr"}
        assert names | {"precision", "recall"} <= set(metrics[split])
        assert all(isinstance(value, (int, float)) for value in metrics[split].values())
        assert all(0 <= metrics[split][name] <= 1 for name in ("BLEU_4", "precision", "recall"))
        assert metrics[split]["human_CIDEr"] > 0.2


def test_the_figures_of_scenes_are_those_of_the_written_captions(reports: Path, tiny_run: Config):
    metrics = json.loads((reports / "metrics.json").read_text())
    truth = json.loads(Path(tiny_run.evaluate.data, "truth.json").read_text())
    lines = [json.loads(line) for line in (reports / "captions.jsonl").read_text().splitlines()]
    for split in ("test", "compositional"):
        accuracy = SceneAccuracy()
        for line in lines:
            if line["split"] == split:
                accuracy.add(line["caption"], Scene.from_dict(truth[str(line["image_id"])]))
        expected = {name: round(value, 4) for name, value in accuracy.figures().items()}
        assert expected.items() <= metrics[split].items()


def test_the_choices_are_those_of_the_log_probabilities_of_whole_captions(
    reports: Path, tiny_run: Config
):
    checkpoint = Checkpoint.load(tiny_run.evaluate.checkpoint)
    artifact, captioner = eager_artifact(checkpoint), checkpoint.captioner
    features = torch.randn(3, *captioner.clip.shape(captioner.config.mapper.feature_kind))
    captions = ["a red boat left of a house", "a dog", "two small black cats behind a tent"]
    found = log_probabilities(artifact, features, captions)
    for row, caption in enumerate(captions):
        ids = checkpoint.tokenizer.encode(caption, add_special_tokens=False).ids
        labels = torch.tensor([[*ids, captioner.config.end_token_id]])
        with torch.no_grad():
            loss = captioner(features[row : row + 1], labels)
        assert found[row].item() == pytest.approx(-loss.item() * labels.numel(), rel=1e-4)
    assert choices(artifact, features, []) == []
    same = features[[0, 0]]
    one, other = log_probabilities(artifact, same, [captions[0], captions[2]])
    assert choices(artifact, features, [(0, captions[0], captions[2])]) == [bool(one > other)]
    metrics = json.loads((reports / "metrics.json").read_text())
    assert all(0 <= metrics[split]["choice"] <= 1 for split in ("test", "compositional"))


def test_every_picture_s_caption_is_written_as_the_captioner_says_it(
    reports: Path, tiny_run: Config
):
    lines = [json.loads(line) for line in (reports / "captions.jsonl").read_text().splitlines()]
    dataset = CaptionDataset.load(tiny_run.evaluate.data)
    wanted = [(s, i) for s in ("test", "compositional") for i in dataset.ids(s)]
    assert [(line["split"], line["image_id"]) for line in lines] == wanted
    artifact = eager_artifact(Checkpoint.load(tiny_run.evaluate.checkpoint))
    settings = dataclasses.replace(tiny_run.evaluate, batch_size=5)  # another batch, same words
    captions = caption_split(artifact, dataset, "compositional", settings)
    own = {line["image_id"]: line for line in lines if line["split"] == "compositional"}
    assert {i: caption.text for i, caption in captions.items()} == {
        i: line["caption"] for i, line in own.items()
    }
    for i, caption in captions.items():
        assert own[i]["confidence"] == pytest.approx(caption.confidence, abs=2e-4)


def test_the_figures_are_in_the_checkpoint_s_card(reports: Path, tiny_run: Config):
    card = ModelCard.load(Path(tiny_run.evaluate.checkpoint) / "README.md")
    metrics = json.loads((reports / "metrics.json").read_text())
    found = {(r.dataset_split, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found["compositional", "CIDEr"] == metrics["compositional"]["CIDEr"]
    assert Checkpoint.load(tiny_run.evaluate.checkpoint).card == str(card)


def test_page_and_chart_are_written(reports: Path):
    page = (reports / "captions.html").read_text()
    line = json.loads((reports / "captions.jsonl").read_text().splitlines()[0])
    assert "<html" in page
    assert f"{line['CIDEr']:.2f}" in page
    assert (reports / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_that_were_trained_on_are_named_in_every_report(tiny_run: Config, tmp_path: Path):
    checkpoint = shutil.copytree(tiny_run.evaluate.checkpoint, tmp_path / "checkpoint")
    data = shutil.copytree(tiny_run.evaluate.data, tmp_path / "mixed")
    splits = json.loads((data / "split.json").read_text())
    splits["test"] += [splits["train"].pop(), splits["train"].pop(), splits["val"].pop()]
    (data / "split.json").write_text(json.dumps(splits))
    settings = dataclasses.replace(
        tiny_run.evaluate,
        data=str(data),
        checkpoint=str(checkpoint),
        out=str(tmp_path / "reports"),
        gate_images=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.5)
        evaluate(settings)
        metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
        assert metrics["seen_in_training"]["test"] == {"train": 2, "val": 1}
        assert metrics["seen_in_training"]["compositional"] == {"train": 0, "val": 0}
        words = (
            f"The captioner was trained on pictures of test: of {len(splits['test'])} pictures "
            "2 in split train and 1 in split val of its training data."
        )
        assert words in (tmp_path / "reports" / "captions.html").read_text()
        assert words in (checkpoint / "README.md").read_text()
        (checkpoint / "seen_images.safetensors").unlink()
        evaluate(dataclasses.replace(settings, splits=["test"]))
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert "seen_in_training" not in metrics
    page = (tmp_path / "reports" / "captions.html").read_text()
    assert "It is not known whether the captioner was trained on these pictures" in page


def test_splits_that_the_data_set_lacks_are_refused(tiny_run: Config, tmp_path: Path):
    settings = dataclasses.replace(tiny_run.evaluate, splits=["dev", "holdout"], out=str(tmp_path))
    words = r"has none of the splits dev, holdout; it has train, val, test, compositional; name the"
    with pytest.raises(Refusal, match=words):
        evaluate(settings)
    assert not list(tmp_path.iterdir())


def test_a_broken_picture_is_refused_not_left_out(tiny_run: Config, tmp_path: Path):
    shutil.copytree(tiny_run.evaluate.data, tmp_path / "scenes")
    dataset = CaptionDataset.load(tmp_path / "scenes")
    file = dataset.files[dataset.ids("test")[0]]
    file.write_bytes(b"no picture")
    settings = dataclasses.replace(
        tiny_run.evaluate, data=str(tmp_path / "scenes"), out=str(tmp_path / "reports")
    )
    with pytest.raises(Refusal, match=f"{file.name}: .*; mend the data set"):
        evaluate(settings)
    assert not (tmp_path / "reports").exists()


def test_gates_that_are_left_out_stay_with_the_weights(tiny_checkpoint: Path, tmp_path: Path):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    own = {"weights_sha256": weights_sha256(checkpoint)}
    gates = {"fp32": {"passes": True}}
    assert keep_evaluation(checkpoint, {"test": {"CIDEr": 1.0}, "precisions": gates, **own}, True)
    assert keep_evaluation(checkpoint, {"test": {"CIDEr": 2.0}, **own}, True)
    assert read_evaluation(checkpoint) == {"test": {"CIDEr": 2.0}, "precisions": gates, **own}


def test_the_same_evaluation_twice_gives_the_same_bytes(reports: Path, tiny_run: Config):
    own = Path(tiny_run.evaluate.checkpoint, "evaluation.json")
    before = own.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.5)
        evaluate(dataclasses.replace(tiny_run.evaluate, out=str(reports / "again")))
    assert own.read_bytes() == before
    for name in ("metrics.json", "captions.jsonl", "captions.html"):
        assert (reports / "again" / name).read_bytes() == (reports / name).read_bytes()


def test_an_evaluation_on_another_data_set_leaves_the_captioner_s_own_alone(
    tiny_checkpoint: Path, tmp_path: Path
):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    weights = {"weights_sha256": weights_sha256(checkpoint)}
    # Folders of different data sets may have the same name.
    photos, scenes = ({**weights, "data_set": "data", "captions_sha256": d} for d in ("1f", "2e"))
    # A published captioner has no figures yet: the first ones are kept, and may be replaced.
    assert keep_evaluation(checkpoint, {**photos, "test": {"CIDEr": 0.1}}, own=False)
    assert keep_evaluation(checkpoint, {**photos, "test": {"CIDEr": 0.2}}, own=False)
    assert not keep_evaluation(checkpoint, {**scenes, "test": {"CIDEr": 3.0}}, own=False)
    assert read_evaluation(checkpoint) == {**photos, "test": {"CIDEr": 0.2}}
    # The data set of the pipeline replaces those of any other, and stays.
    gates = {"precisions": {"fp32": {"passes": True}}}
    assert keep_evaluation(checkpoint, {**photos, **gates}, own=False)
    assert keep_evaluation(checkpoint, {**scenes, "test": {"CIDEr": 3.0}}, own=True)
    assert read_evaluation(checkpoint) == {**scenes, "test": {"CIDEr": 3.0}}
    assert not keep_evaluation(checkpoint, {**photos, "test": {"CIDEr": 0.2}}, own=False)
    assert read_evaluation(checkpoint) == {**scenes, "test": {"CIDEr": 3.0}}


@pytest.mark.parametrize(
    ("words", "out", "own"),
    [
        ([], "reports", True),
        (["--data", "data/scenes"], "reports", True),
        (["experiment=folder"], "reports/mine", True),
        (["evaluate.data=data/other"], "data/other/report", False),
        (["--data", "data/other"], "data/other/report", False),
        (["experiment=folder", "evaluate.data=data/scenes"], "data/scenes/report", False),
        (["evaluate.data=data/other", "evaluate.out=mine"], "mine", False),
        (["--data", "data/other", "--out", "mine"], "mine", False),
        (["evaluate.data=data/other", "train.data=data/other"], "reports", True),
    ],
)
def test_the_report_of_another_data_set_does_not_replace_the_pipeline_s(
    words: list[str], out: str, own: bool
):
    settings, found = read_settings(words)
    assert (Path(settings.out), found) == (Path(out), own)


def test_a_data_set_without_truth_is_scored_only(
    tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = shutil.copytree(tiny_run.evaluate.data, tmp_path / "photos")
    (data / "truth.json").unlink()
    checkpoint = shutil.copytree(tiny_run.evaluate.checkpoint, tmp_path / "checkpoint")
    settings = dataclasses.replace(
        tiny_run.evaluate,
        data=str(data),
        checkpoint=str(checkpoint),
        out=str(tmp_path / "reports"),
        splits=["compositional"],
        gate_images=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.scores.scoring._meteor", lambda *_: 0.5)
        figures = evaluate(settings, own=False)
    assert "has no truth about its pictures to check captions against" in capsys.readouterr().out
    assert "precision" not in figures["compositional"]
    assert "is not in the picture" not in (tmp_path / "reports" / "captions.html").read_text()
    card = (checkpoint / "README.md").read_text()
    assert "False statements in its captions were not counted" in card
