"""Captions with their relation turned round are false; moulds forget what is stated."""

from __future__ import annotations

import random

import pytest

from training.scenes import sample_scene, write_captions
from training.scenes.language.accuracy import SceneAccuracy
from training.scenes.language.moulds import mould
from training.scenes.language.statements import false_claims
from training.scenes.language.turned import turned
from training.scenes.world.catalogue import CONVERSE
from training.scenes.world.sampling import ARRANGEMENTS, _arrangement


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("a dog to the left of a house", "a dog to the right of a house"),
        ("under clouds, two cats right of a car", "under clouds, two cats left of a car"),
        ("a bus behind a tree", "a bus in front of a tree"),
        ("a kite over a boat at sea", "a kite under a boat at sea"),
        ("a dog next to a house", None),
        ("a dog on a beach", None),
    ],
)
def test_the_relation_alone_is_turned_round(caption: str, other: str | None) -> None:
    found = turned(caption)
    assert (found and found.caption) == other


def test_every_reference_turned_round_has_one_false_claim_and_turns_back() -> None:
    rng = random.Random(1)
    kinds = set()
    for _ in range(300):
        scene = sample_scene(rng, "train")
        for caption in write_captions(scene):
            if (other := turned(caption)) is not None:
                assert [c.kind for c in false_claims(other.caption, scene)] == ["relation"]
                back = turned(other.caption)
                assert back is not None
                assert back == (caption, other.kind)
                kinds.add(other.kind)
    assert kinds == {"left_right", "front_behind", "above_below"}


def test_a_mould_is_what_the_stated_facts_leave() -> None:
    same = [
        "a small red boat sailing to the left of two green tents on a beach at night",
        "a pair of big blue dogs standing behind a white cat in a meadow during the day",
    ]
    assert {mould(caption) for caption in same} == {
        "COUNT SIZE COLOUR THING DOING RELATION COUNT COLOUR THING PLACE TIME"
    }
    assert mould("there is a car in town") == "there is COUNT THING PLACE"


def test_moulds_and_choices_are_figures() -> None:
    accuracy = SceneAccuracy()
    scene = sample_scene(random.Random(2), "test")
    for caption in ("a red dog", "a blue cat", "two cats"):
        accuracy.add(caption, scene)
    assert "choice" not in accuracy.figures()
    for kind, right in (("left_right", True), ("left_right", False), ("above_below", True)):
        accuracy.add_choice(kind, right)
    figures = accuracy.figures()
    assert figures["moulds"] == pytest.approx(2 / 3)
    assert figures["choice"] == pytest.approx(2 / 3)
    assert figures["choice_left_right"] == 0.5
    assert "choice_front_behind" not in figures


def test_training_scenes_have_their_arrangements_in_the_shares_that_are_said() -> None:
    rng = random.Random(3)
    counts = dict.fromkeys(ARRANGEMENTS, 0)
    order = {relation: [0, 0] for relation in CONVERSE}
    for _ in range(600):
        scene = sample_scene(rng, "train")
        found = _arrangement([group.thing for group in scene.groups], scene.relation)
        counts[found] += 1
        if found.startswith("open") and scene.relation:
            order[scene.relation][0] += 1
    for name, share in ARRANGEMENTS.items():
        assert counts[name] / 600 == pytest.approx(share, abs=0.06)
    for relation, converse in CONVERSE.items():
        assert abs(order[relation][0] - order[converse][0]) <= 50
