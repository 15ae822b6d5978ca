"""Scenes are reproducible, their relations are true of the boxes, and splits share no held pair."""

import hashlib
import json
import random

import pytest

from training.scenes import Scene, draw_scene, sample_scene
from training.scenes.drawing.paint import PAINTS, Light, times
from training.scenes.world.catalogue import (
    ABOVE,
    BEHIND,
    BELOW,
    COLOURS,
    CONVERSE,
    FRONT,
    HELD_COLOURS,
    HELD_RELATIONS,
    LEFT,
    PLACE_WEATHERS,
    PLACES,
    RIGHT,
    THINGS,
    TIMES,
)


def scenes(split: str, count: int, seed: int = 1) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, split) for _ in range(count)]


def pairs(scene: Scene) -> set[tuple[str, str]]:
    """The (thing, relation) pairs of a scene, seen from both sides."""
    if scene.relation is None:
        return set()
    first, second = scene.groups
    return {(first.thing, scene.relation), (second.thing, CONVERSE[scene.relation])}


def test_a_seed_gives_the_same_scenes_and_another_one_others() -> None:
    assert scenes("train", 50, seed=3) == scenes("train", 50, seed=3)
    assert not set(scenes("train", 50, seed=3)) & set(scenes("train", 50, seed=4))


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "05c0dfff19e3d0a8"),
        ("test", "aeb7ef7ad43b1037"),
        ("compositional", "c1c0b10094fbd9ec"),
    ],
)
def test_scenes_do_not_depend_on_the_process(split: str, digest: str) -> None:
    # Written down once: a different digest means that every data set becomes another one.
    text = json.dumps([scene.to_dict() for scene in scenes(split, 200, seed=7)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_ground_truth_survives_json() -> None:
    for scene in scenes("test", 100):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'dev'.*train"):
        sample_scene(random.Random(1), "dev")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_pairs_never_occur_outside_compositional(split: str) -> None:
    for scene in scenes(split, 3000):
        for group in scene.groups:
            assert group.colour not in HELD_COLOURS[group.thing]
        for thing, relation in pairs(scene):
            assert HELD_RELATIONS[thing] != relation


def test_compositional_scenes_show_only_held_out_pairs() -> None:
    seen_colours, seen_relations = set(), set()
    for scene in scenes("compositional", 3000):
        for group in scene.groups:
            assert group.colour in HELD_COLOURS[group.thing]
            seen_colours.add((group.thing, group.colour))
        held = {pair for pair in pairs(scene) if HELD_RELATIONS[pair[0]] == pair[1]}
        assert held or scene.relation is None
        seen_relations |= held
    assert len(seen_colours) == 2 * len(THINGS)
    assert seen_relations == set(HELD_RELATIONS.items())


def test_everything_that_train_may_show_is_shown() -> None:
    drawn = scenes("train", 4000)
    assert {s.place for s in drawn} == set(PLACES)
    assert {s.time for s in drawn} == set(TIMES)
    assert {(s.place, s.weather) for s in drawn} == {
        (place, weather) for place, weathers in PLACE_WEATHERS.items() for weather in weathers
    }
    shown = {(g.thing, g.colour) for s in drawn for g in s.groups}
    assert shown == {(t, c) for t in THINGS for c in COLOURS if c not in HELD_COLOURS[t]}
    assert {g.count for s in drawn for g in s.groups} == {1, 2, 3}
    assert {s.relation for s in drawn} == {None, LEFT, RIGHT, FRONT, BEHIND, ABOVE, BELOW}
    counted = [sum(g.thing == t for s in drawn for g in s.groups) for t in THINGS]
    assert min(counted) * 4 > max(counted)


def test_things_lie_in_the_centre_square_and_are_large() -> None:
    for scene in scenes("train", 1500) + scenes("compositional", 500):
        for group in scene.groups:
            for x, y, width, height in group.boxes:
                assert x >= 0
                assert y >= 0
                assert x + width <= 1.0001
                assert y + height <= 1.0001
                assert (width * height) ** 0.5 > 0.19
            assert group.thing in THINGS
            assert scene.place in THINGS[group.thing].places


def test_sizes_differ_clearly() -> None:
    roots: dict[str, list[float]] = {"small": [], "medium": [], "big": []}
    for scene in scenes("train", 2000):
        for group in scene.groups:
            roots[group.size] += [(box[2] * box[3]) ** 0.5 for box in group.boxes]
    assert max(roots["small"]) * 1.6 < min(roots["big"])
    assert max(roots["medium"]) < min(roots["big"])


def test_relations_are_true_of_the_boxes() -> None:
    for scene in scenes("train", 3000) + scenes("compositional", 1000):
        if scene.relation is None:
            continue
        first, second = scene.groups
        if scene.relation in (RIGHT, BEHIND, BELOW):
            first, second = second, first
        left = min(box[0] for box in first.boxes), min(box[0] for box in second.boxes)
        right = tuple(max(b[0] + b[2] for b in g.boxes) for g in (first, second))
        foot = tuple(max(b[1] + b[3] for b in g.boxes) for g in (first, second))
        if scene.relation in (LEFT, RIGHT):
            assert right[0] < left[1]
            continue
        overlap = min(right) - max(left)
        assert overlap > -0.06  # above or behind one another, not beside
        if scene.relation in (FRONT, BEHIND):
            assert foot[0] > foot[1] + 0.08
            assert overlap > 0.4 * min(right[0] - left[0], right[1] - left[1])
        else:
            assert foot[0] < min(box[1] for box in second.boxes)


def test_no_thing_hides_much_of_another() -> None:
    for scene in scenes("train", 2000):
        if scene.relation not in (FRONT, BEHIND):
            continue
        front, back = scene.groups if scene.relation == FRONT else scene.groups[::-1]
        for x, y, w, h in back.boxes:
            covered = sum(
                max(min(x + w, cx + cw) - max(x, cx), 0) * max(min(y + h, cy + ch) - max(y, cy), 0)
                for cx, cy, cw, ch in front.boxes
            )
            assert covered / (w * h) <= 0.26


def test_drawing_is_a_function_of_scene_and_size() -> None:
    for scene in scenes("train", 5):
        one, two = draw_scene(scene, 200, 150), draw_scene(scene, 200, 150)
        assert one.mode == "RGB"
        assert one.size == (200, 150)
        assert one.tobytes() == two.tobytes()
        assert draw_scene(scene, 150, 200).size == (150, 200)


def test_every_place_thing_time_and_weather_can_be_drawn() -> None:
    drawn = set()
    for scene in scenes("train", 400):
        picture = draw_scene(scene, 96, 80)
        assert len(picture.resize((24, 20)).getcolors(480)) > 20
        drawn |= {scene.place, scene.time, scene.weather, *(g.thing for g in scene.groups)}
    assert drawn >= {*PLACES, *TIMES, *THINGS, "clear", "cloudy", "rain", "snow"}


def test_the_middle_of_a_thing_has_its_colour() -> None:
    """In the middle of a thing's box its own colour is nearer than any other."""
    right = total = 0
    for scene in scenes("train", 120):
        if scene.relation in (FRONT, BEHIND):
            continue  # partly hidden
        picture = draw_scene(scene, 96, 96)
        light = Light.of(scene.time, "clear", random.Random(1)).thing
        palette = {name: times(paint, light) for name, paint in PAINTS.items()}
        for group in scene.groups:
            for x, y, w, h in group.boxes:
                box = [round(96 * v) for v in (x, y, x + w, y + h)]
                votes = dict.fromkeys(palette, 0)
                for count, pixel in picture.crop(tuple(box)).getcolors(96 * 96):
                    near = {
                        name: sum((a - b) ** 2 for a, b in zip(pixel, paint, strict=True))
                        for name, paint in palette.items()
                    }
                    best = min(near, key=near.__getitem__)
                    votes[best] += count * (near[best] < 1600)
                total += 1
                right += max(votes, key=votes.__getitem__) == group.colour
    assert right / total > 0.8
