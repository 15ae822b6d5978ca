"""Scores agree with pycocoevalcap's own, and what cannot be had is said."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from model.refusal import Refusal
from training.evaluation.scores import scoring
from training.scenes import sample_scene, write_captions

ODD = {
    1: ["A Red dog's bowl, isn't it? (yes) -- e.g. 3.5% \"quoted\" ...", "", "café au lait; U.S."],
    2: ["", "."],
    3: ["two\nlines\u2028of it", ""],
}


@pytest.fixture(scope="module")
def references() -> dict[int, list[str]]:
    rng = random.Random(1)
    return {image: write_captions(sample_scene(rng, "test")) for image in range(40)}


@pytest.fixture
def with_java(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{scoring.java_home() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.mark.usefixtures("with_java")
def test_tokens_are_those_of_the_coco_evaluation(references: dict[int, list[str]]) -> None:
    for captions in (references, ODD):
        theirs = PTBTokenizer().tokenize(
            {image: [{"caption": c.replace("\u2028", " ")} for c in own]
             for image, own in captions.items()}
        )  # fmt: skip
        assert scoring.tokenize(captions) == theirs


def test_scores(references: dict[int, list[str]]) -> None:
    path = os.environ["PATH"]
    generated = {image: own[0] for image, own in references.items()}
    scores = scoring.score(generated, references)
    figures = scores.figures
    for name in ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "METEOR", "ROUGE_L"):
        assert figures[name] == pytest.approx(1.0, abs=1e-6)
    wanted = {image: [c.replace(",", "") for c in own] for image, own in references.items()}
    mean, each = Cider().compute_score(wanted, {i: own[:1] for i, own in wanted.items()})
    assert figures["CIDEr"] == pytest.approx(mean)
    assert scores.cider == pytest.approx(dict(zip(wanted, each, strict=True)))
    assert figures["CIDEr"] > figures["CIDEr_fewer_references"] > figures["human_CIDEr"] > 0
    assert scoring.cider(generated, references) == pytest.approx(mean)
    assert ("SPICE" in figures) != any("SPICE" in note for note in scores.notes)
    assert os.environ["PATH"] == path
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="],
        text=True,
        capture_output=True,
        check=False,
    )
    assert "meteor" not in children.stdout


def test_wrong_captions_score_less(
    references: dict[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list(references)
    shifted = {image: references[images[i - 1]][0] for i, image in enumerate(images)}
    monkeypatch.setattr(scoring, "_meteor", lambda *_: 0.0)  # takes ten seconds to start
    figures = scoring.score(shifted, references).figures
    assert figures["CIDEr"] < 0.5 * figures["human_CIDEr"]


def test_human_cider_scores_each_reference_against_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "_meteor", lambda *_: 0.0)  # takes ten seconds to start
    references = {1: ["a b", "c d", "a b"], 2: ["e f", "e f", "g h"], 3: ["i j", "i j", "i j"]}
    by_hand = []
    for turn in range(3):
        stay = {i: own[:turn] + own[turn + 1 :] for i, own in references.items()}
        by_hand.append(
            Cider().compute_score(stay, {i: [own[turn]] for i, own in references.items()})[0]
        )
    scores = scoring.score({image: own[0] for image, own in references.items()}, references)
    assert scores.figures["human_CIDEr"] == pytest.approx(sum(by_hand) / 3)


def test_one_reference_an_image_leaves_human_cider_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_meteor", lambda *_: 0.0)  # takes ten seconds to start
    scores = scoring.score({1: "a dog", 2: ""}, {1: ["a dog"], 2: ["a red boat"]})
    assert "human_CIDEr" not in scores.figures
    assert any("human_CIDEr" in note for note in scores.notes)


#: By language two captions that share half of their words, or of their characters.
LANGUAGES = {
    "Hindi": ("एक कुत्ता दौड़ रहा है", "एक बिल्ली सो रही है"),
    "Thai": ("สุนัขวิ่งบนหญ้า", "แมวนอนบนเสื่อ"),
    "Arabic": ("كَلْبٌ يَجْرِي عَلَى العُشْبِ", "قِطَّةٌ تَنَامُ عَلَى السَّرِيرِ"),
    "Japanese": ("犬が草の上を走っている", "猫がベッドの上で寝ている"),
    "Chinese": ("一只狗在草地上奔跑", "一只猫在床上睡觉"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_other_languages_are_scored_by_unicode(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_java(*_: object) -> None:
        raise AssertionError("a program for English was used")

    for name in ("_meteor", "_spice", "tokenize"):
        monkeypatch.setattr(scoring, name, no_java)
    first, second = LANGUAGES[language]
    references = {1: [first, first], 2: [second, second], 3: ["...", "!"]}
    right = {1: first, 2: second, 3: ""}
    near = {1: first[: len(first) // 2], 2: second[: len(second) // 2], 3: ""}
    best, partly, wrong = (
        scoring.score(generated, references)
        for generated in (right, near, {1: second, 2: first, 3: ""})
    )
    assert best.tokenizer == "Unicode"
    assert "METEOR" not in best.figures
    assert any("METEOR and SPICE left out" in note for note in best.notes)
    assert best.figures["CIDEr"] > partly.figures["CIDEr"] > wrong.figures["CIDEr"]
    assert partly.figures["CIDEr"] > 1
    assert scoring.cider(near, references) == pytest.approx(partly.figures["CIDEr"])


def test_english_with_a_few_other_letters_is_scored_by_ptb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_meteor", lambda *_: 0.5)
    references = {1: ["a café named 犬", "a sign"], 2: ["two boats", "boats"]}
    scores = scoring.score({1: "a café", 2: "boats"}, references)
    assert scores.tokenizer == "PTB"
    assert scores.figures["METEOR"] == 0.5


@pytest.mark.parametrize(
    ("generated", "references", "words"),
    [
        ({}, {}, "nothing to score"),
        ({1: "a"}, {2: ["a"]}, "2 images"),
        ({1: "a"}, {1: []}, "no reference"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    generated: dict[int, str], references: dict[int, list[str]], words: str
) -> None:
    for scorer in (scoring.cider, scoring.score):
        with pytest.raises(Refusal, match=words):
            scorer(generated, references)


def test_a_wrong_java_home_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Refusal, match="JAVA_HOME"):
        scoring.tokenize({1: ["a"]})


def test_a_java_that_fails_is_a_refusal_with_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'Error: no room for the heap' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Refusal, match="no room for the heap"):
        scoring.tokenize({1: ["a"]})
    with pytest.raises(Refusal, match="METEOR failed: Error: no room"):
        scoring._meteor({1: ["a"]}, {1: ["a"]})
