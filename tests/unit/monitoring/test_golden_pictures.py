"""Golden pictures: the shipped captioner gives what is recorded; mistakes are far from it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from client import Caption, CaptionResult
from client.agreement import word_f1
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.decode import load_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.refusal import Refusal
from monitoring import canary
from monitoring.golden.asking import Answer, Round, compare
from monitoring.golden.gauges import Gauges
from monitoring.golden.recording import choose
from monitoring.golden.reference import Golden, Limits, Reference, mean_feature
from tests import ROOT

Replies = Callable[..., Round]


@pytest.fixture(scope="module")
def shipped() -> Artifact:
    folder = ROOT / "training" / "pretrained" / "scenes-captioner"
    return eager_artifact(Checkpoint.load(folder))


@pytest.fixture(scope="module")
def ask(shipped: Artifact) -> Replies:
    """Captions the golden pictures in this process, and compares."""
    reference = Reference.load(canary.SCENES)

    def start(
        preprocessing: Preprocessing = shipped.preprocessing,
        pictures: int = 8,
        exchanged: tuple[str, str] | None = None,
    ) -> Round:
        golden = reference.pictures[:pictures]
        images = [load_image(each.file.read_bytes(), side=preprocessing.size) for each in golden]
        pixels = torch.stack([to_pixels(image, preprocessing) for image in images])
        features = shipped.encode(pixels)
        captions = shipped.caption(features, shipped.defaults)
        answers = []
        for each, row, (best, *_) in zip(golden, features, captions, strict=True):
            text = best.text
            if exchanged:
                one, other = exchanged
                text = " ".join({one: other, other: one}.get(w, w) for w in text.split())
            found = Caption(text, best.confidence, best.log_prob, best.tokens)
            reply = CaptionResult((found,), "clipcap", "1")
            feature = mean_feature(row.numpy())
            answers.append(compare(each, reference.limits, reply, feature, 0.1))
        return Round(answers)

    return start


def test_the_shipped_captioner_gives_what_is_recorded(ask: Replies):
    found = ask()
    assert not [each.problem for each in found.answers if each.problem]
    assert found.status == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"resample": "lanczos"},
        {"resample": "bilinear"},
        {"crop": False},
        {"mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)},
    ],
    ids=str,
)
def test_wrong_preprocessing_is_far_from_it(ask: Replies, shipped: Artifact, wrong: dict):
    found = ask(dataclasses.replace(shipped.preprocessing, **wrong), pictures=8)
    assert found.status == 1
    assert "the cosine of its feature is" in found.wrong[0].problem


def test_words_that_are_exchanged_show(ask: Replies):
    """Every two of those that stand in captions of the pictures: they are never both in all."""
    captions = [each.caption.split() for each in Reference.load(canary.SCENES).pictures]
    words = sorted({word for caption in captions for word in caption})
    assert len(words) > 60
    for one, other in itertools.combinations(words, 2):
        exchange = {one: other, other: one}
        assert any([exchange.get(w, w) for w in caption] != caption for caption in captions)
    found = ask(pictures=2, exchanged=("two", "three"))
    assert found.status == 1
    assert "the caption is " in found.wrong[0].problem


def test_the_pictures_are_few_and_small():
    files = list(canary.SCENES.iterdir())
    assert sum(file.stat().st_size for file in files) < 100_000


GOLDEN = Golden(Path("a.jpg"), "a red boat", -2.0, 4, mean_feature([[3.0, 0.0], [1.0, 0.0]]))


def reply(caption: str = "a red boat", log_prob: float = -2.0) -> CaptionResult:
    return CaptionResult((Caption(caption, 0.6, log_prob, 4),), "clipcap", "2.0")


@pytest.mark.parametrize(
    ("result", "feature", "problem"),
    [
        (reply(), [2.0, 0.0], ""),
        (reply(log_prob=-2.07), [2.0, 0.0], ""),
        (reply(log_prob=-2.09), [2.0, 0.0], "differs by 0.0225 nats a token; the limit is 0.02"),
        (reply(log_prob=math.nan), [2.0, 0.0], "differs by nan"),
        (reply("a blue boat"), [2.0, 0.0], "the caption is 'a blue boat', expected 'a red boat'"),
        (reply(), [2.0, 0.1], "the cosine of its feature is 0.998752; the limit is 0.99997"),
        (reply(), [2.0, 0.0, 0.0], "the cosine of its feature is 0.000000"),
        (reply(), [math.nan, 0.0], "the cosine of its feature is nan"),
    ],
)
def test_a_reply_is_compared_in_every_way(
    result: CaptionResult, feature: list[float], problem: str
):
    found = compare(GOLDEN, Limits(), result, mean_feature(feature), 0.1)
    assert problem in found.problem
    assert bool(problem) == bool(found.problem)


def test_gauges_of_rounds():
    gauges = Gauges("1.0")

    def shown() -> dict[str, float]:
        families = text_string_to_metric_families(generate_latest(gauges.registry).decode())
        return {
            "/".join([s.name.removeprefix("clipcap_golden_"), *s.labels.values()]): s.value
            for family in families
            for s in family.samples
        }

    right = Answer(Path("a"), 0.1, "", True, True, 1.0, 0.001, 0.99999, ("clipcap", "2.0"))
    wrong = Answer(Path("b"), 0.3, "differs", True, False, 0.5, None, 0.9, ("clipcap", "2.0"))
    unasked = Answer(Path("c"), 0.2, "unreachable", asked=False)
    gauges.show(Round([right, wrong, unasked]))
    found = shown()
    assert found["match"] == 0.5
    assert found["similarity"] == 0.75
    assert found["log_prob_difference"] == 0.001
    assert found["feature_cosine"] == 0.9
    assert found["seconds"] == 0.3
    assert [found[f"pictures/{name}"] for name in ("right", "wrong", "unasked")] == [1, 1, 1]
    assert found["model_info/clipcap/1.0/2.0"] == 1
    assert found["last_success_timestamp_seconds"] == 0
    assert found["last_round_timestamp_seconds"] > 0
    gauges.show(Round([right]))
    assert shown()["last_success_timestamp_seconds"] > 0
    gauges.show(Round([unasked]))  # nothing old is left
    found = shown()
    assert all(math.isnan(found[name]) for name in ("match", "similarity", "feature_cosine"))
    assert not [name for name in found if name.startswith("model_info")]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda whole: whole.update(format=7), "has format 7; this version reads 1"),
        (lambda whole: whole.pop("version"), "cannot be read: KeyError('version')"),
        (lambda whole: whole["limits"].update(cosine=2), "the limit cosine is 2"),
        (lambda whole: whole["pictures"].clear(), "names no picture"),
        (lambda whole: whole["pictures"]["scene-01.jpg"].update(feature="?"), "cannot be read"),
        (lambda whole: whole["pictures"]["scene-01.jpg"].update(tokens=0), "has 0 tokens"),
        (
            lambda whole: whole["pictures"].update(x=whole["pictures"]["scene-01.jpg"]),
            "x is missing",
        ),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(
    tmp_path: Path, change: Callable[[dict], object], problem: str
):
    folder = shutil.copytree(canary.SCENES, tmp_path / "scenes")
    whole = json.loads((folder / "expected.json").read_text())
    change(whole)
    (folder / "expected.json").write_text(json.dumps(whole))
    with pytest.raises(Refusal, match=r"record it again|must be") as refused:
        Reference.load(folder)
    assert problem in str(refused.value)


def test_a_folder_without_a_reference_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["canary", "--once", "--folder", str(tmp_path)])
    assert canary.main() == 2
    assert "python -m monitoring.canary --record --folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["canary", "--record", "--folder", str(tmp_path)])
    assert canary.main() == 2
    assert "holds no picture file" in capsys.readouterr().err


def test_pictures_are_chosen_for_their_words(tmp_path: Path):
    captions = {"a.jpg": "a red boat", "b.jpg": "a red boat and a cat", "c.jpg": "two dogs"}
    for name in captions:
        (tmp_path / name).write_bytes(b"picture")
    chosen = tmp_path / "chosen"
    choose(lambda f: (Golden(f, captions[f.name], -1.0, 5, None), "1"), tmp_path, 2, chosen)
    assert sorted(file.name for file in chosen.iterdir()) == ["b.jpg", "c.jpg"]
    with pytest.raises(Refusal, match="has pictures already"):
        choose(lambda f: (Golden(f, "", -1.0, 5, None), "1"), tmp_path, 2, chosen)


@pytest.mark.parametrize(
    ("one", "other", "f1"),
    [
        ("a red boat", "A boat red", 1),
        ("a b", "c d", 0),
        ("a a b", "a b", 0.8),
        ("", "", 1),
        ("", "a", 0),
    ],
)
def test_word_f1(one: str, other: str, f1: float):
    assert word_f1(one, other) == pytest.approx(f1)
    assert word_f1(other, one) == pytest.approx(f1)
