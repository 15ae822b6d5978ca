"""Captions of scenes are true, and every claim in them is found."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scenes import Group, Scene, sample_scene, write_captions
from training.scenes.language.accuracy import SceneAccuracy
from training.scenes.language.statements import false_claims, stated, truths
from training.scenes.world.catalogue import HELD_COLOURS, HELD_RELATIONS, LEFT

BOX = (0.1, 0.5, 0.3, 0.3)


def group(thing: str, colour: str, count: int = 1, size: str = "medium") -> Group:
    return Group(thing, colour, size, (BOX,) * count, (False,) * count)


def scene(*groups: Group, relation: str | None = None) -> Scene:
    return Scene(5, "lake", "night", "rain", 0.4, groups, relation)


@pytest.mark.parametrize("split", ["train", "compositional"])
def test_captions_of_thousands_of_scenes_are_true_and_well_formed(split: str) -> None:
    rng = random.Random(split)
    for _ in range(2000):
        check_captions(sample_scene(rng, split))


def check_captions(drawn: Scene) -> None:
    captions = write_captions(drawn)
    assert captions == write_captions(drawn)
    assert len(captions) == 5
    assert len(set(captions)) == 5
    for caption in captions:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", caption), caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\bone \w+s\b", caption), caption
        assert false_claims(caption, drawn) == [], caption
        assert set(stated(caption).values("thing")) <= truths(drawn)["thing"]
    complete = 0
    true = truths(drawn)
    for caption in captions:
        said = stated(caption)
        everything = all(set(said.values(k)) == true[k] for k in ("thing", "colour", "count"))
        placed = bool(said.values("place")) and bool(said.values("time") + said.values("weather"))
        related = drawn.relation is None or bool(said.values("relation"))
        complete += everything and placed and related
    assert complete >= 2, captions


def test_the_vocabulary_is_modest() -> None:
    rng = random.Random(2)
    words: set[str] = set()
    for _ in range(2000):
        for caption in write_captions(sample_scene(rng, "train")):
            words |= set(re.findall("[a-z]+", caption))
    assert 100 < len(words) < 400


def test_captions_of_train_never_state_a_held_out_pair() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        for caption in write_captions(sample_scene(rng, "train")):
            said = stated(caption)
            for colour, thing in said.values("colour"):
                assert colour not in HELD_COLOURS[str(thing)]
            for first, relation, _ in said.values("relation"):
                assert HELD_RELATIONS[str(first)] != relation


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("", set()),
        ("the of a 12 #!", set()),
        (
            "two small red boats to the left of an orange house by a lake at night",
            {
                ("thing", "boat"), ("count", "boat", 2), ("size", "boat", "small"),
                ("colour", "red", "boat"), ("relation", "boat", "left of", "house"),
                ("thing", "house"), ("count", "house", 1), ("colour", "orange", "house"),
                ("place", "lake"), ("time", "night"),
            },
        ),
        (
            "A rainy night beside a lake, with two people in red coats!",
            {
                ("weather", "rain"), ("time", "night"), ("place", "lake"),
                ("thing", "person"), ("count", "person", 2), ("colour", "red", "person"),
            },
        ),
        (
            "a person in blue next to a pair of kitties",
            {
                ("thing", "person"), ("count", "person", 1), ("colour", "blue", "person"),
                ("relation", "person", "beside", "cat"), ("thing", "cat"), ("count", "cat", 2),
            },
        ),
        (
            "a house with a dog behind it under a cloudy sky in a green field",
            {
                ("thing", "house"), ("count", "house", 1), ("thing", "dog"), ("count", "dog", 1),
                ("relation", "dog", "behind", "house"), ("weather", "cloudy"), ("place", "meadow"),
            },
        ),
        (
            "red and yellow balloons over over a a plane plane",
            {
                ("thing", "balloon"), ("colour", "red", "balloon"), ("colour", "yellow", "balloon"),
                ("relation", "balloon", "above", "plane"), ("thing", "plane"),
                ("count", "plane", 1),
            },
        ),
    ],
)  # fmt: skip
def test_the_claims_of_a_caption(caption: str, claims: set[tuple[str | int, ...]]) -> None:
    assert {(claim.kind, *claim.value) for claim in stated(caption).claims} == claims


@given(st.text(alphabet="abcdeflr ,.in12é\n", max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    for claim in stated(text).claims:
        assert 0 <= claim.span[0] < claim.span[1] <= len(text)


def test_a_span_gives_the_words_of_a_claim() -> None:
    caption = "a Red boat behind two cats"
    words = {c.kind: caption[slice(*c.span)] for c in stated(caption).claims}
    assert words["colour"] == "Red"
    assert words["relation"] == "behind"


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("a red boat to the left of two white dogs by a lake at night", []),
        ("two white dogs to the right of a red boat in the rain", []),
        ("two white dogs next to a boat", []),
        ("a white boat and two red dogs", ["colour", "colour"]),
        ("a red boat and a boat", ["thing"]),
        ("two red boats to the right of a white dog", ["count", "count", "relation"]),
        ("a red cat at sea at sunset", ["thing", "count", "colour", "place", "time"]),
        ("a large red boat under a clear sky", ["size", "weather"]),
    ],
)
def test_false_claims_are_found(caption: str, kinds: list[str]) -> None:
    true = scene(group("boat", "red"), group("dog", "white", 2), relation=LEFT)
    assert sorted(claim.kind for claim in false_claims(caption, true)) == sorted(kinds)


def test_figures_count_over_all_captions() -> None:
    true = scene(group("boat", "red"), group("dog", "white", 2), relation=LEFT)
    accuracy = SceneAccuracy()
    assert accuracy.add("a red boat and two white dogs", true) == []  # 4 of 4 stated
    accuracy.add("a blue boat at night", true)  # the boat, but not its colour
    accuracy.add("a red cat", true)  # neither
    figures = accuracy.figures()
    assert figures["precision"] == pytest.approx(5 / 8)
    assert figures["recall"] == pytest.approx(5 / 12)
    assert figures["hallucination_rate"] == pytest.approx(1 / 4)
    assert figures["faultless"] == pytest.approx(1 / 3)
    assert figures["count_precision"] == pytest.approx(3 / 4)
    assert figures["time_recall"] == pytest.approx(1 / 3)


def test_captions_that_state_nothing_score_zero() -> None:
    accuracy = SceneAccuracy()
    accuracy.add("", scene(group("boat", "red")))
    figures = accuracy.figures()
    assert figures["precision"] == figures["recall"] == figures["hallucination_rate"] == 0
