"""Draws scenes at random: first what is in the picture, then where everything stands.

A layout that does not fit, or hides too much, is thrown away and the scene drawn anew, so that
every relation is true of the boxes and everything lies within the centre square.
"""

import random

from training.scenes.world.catalogue import (
    ABOVE,
    BEHIND,
    BELOW,
    COLOURS,
    FRONT,
    HELD_COLOURS,
    LEFT,
    PLACE_WEATHERS,
    PLACES,
    RIGHT,
    THINGS,
    TIMES,
    held_relation,
)
from training.scenes.world.layout import (
    HORIZONS,
    Wish,
    fits,
    place_beside,
    place_in_depth,
    place_one,
    place_over,
)
from training.scenes.world.scene import Group, Scene

SPLITS = ("train", "val", "test", "compositional")


def sample_scene(rng: random.Random, split: str) -> Scene:
    """Draws one scene of a split.

    Args:
        rng: where the scene's seed comes from; one number is taken from it.
        split: `train`, `val` and `test` share one distribution; in a `compositional` scene every
            colour-thing pair is a held-out one, and so is at least one thing-relation pair where
            there are two groups.

    Raises:
        ValueError: for another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    seed = rng.getrandbits(48)
    own = random.Random(seed)
    while True:
        scene = _attempt(own, seed, split == "compositional")
        if scene is not None:
            return scene


def _attempt(rng: random.Random, seed: int, held: bool) -> Scene | None:
    names = [rng.choice(tuple(THINGS))]
    place = rng.choice([p for p in PLACES if p in THINGS[names[0]].places])
    if rng.random() < 0.85:
        names.append(rng.choice([t for t, k in THINGS.items() if place in k.places]))
        if names[0] == names[1]:
            return None
    relation = None
    if len(names) == 2:
        relation = rng.choice(_possible(names[0], names[1]))
        if held_relation(names[0], relation, names[1]) != held:
            return None
    horizon = HORIZONS[place] + rng.uniform(-0.025, 0.025)
    wishes = [Wish(rng, name, len(names)) for name in names]
    if relation is None:
        boxes = place_one(rng, wishes[0], place, horizon)
    elif relation in (LEFT, RIGHT):
        boxes = place_beside(rng, wishes, relation, place, horizon)
    elif relation in (FRONT, BEHIND):
        boxes = place_in_depth(rng, wishes, relation, place, horizon)
    else:
        boxes = place_over(rng, wishes, relation, place, horizon)
    if boxes is None or not fits(boxes):
        return None
    groups = []
    for wish, group_boxes in zip(wishes, boxes, strict=True):
        held_colours = HELD_COLOURS[wish.name]
        colours = held_colours if held else [c for c in COLOURS if c not in held_colours]
        flip = rng.random() < 0.5
        groups.append(
            Group(
                thing=wish.name,
                colour=rng.choice(colours),
                size=wish.size,
                boxes=tuple(tuple(round(v, 4) for v in box) for box in group_boxes),
                flipped=tuple(flip if rng.random() < 0.8 else not flip for _ in group_boxes),
            )
        )
    return Scene(
        seed=seed,
        place=place,
        time=rng.choices(TIMES, (0.5, 0.25, 0.25))[0],
        weather=rng.choices(
            PLACE_WEATHERS[place], [3 if w == "clear" else 1.5 for w in PLACE_WEATHERS[place]]
        )[0],
        horizon=round(horizon, 4),
        groups=tuple(groups),
        relation=relation,
    )


def _possible(first: str, second: str) -> tuple[str, ...]:
    """How `first` can stand to `second`."""
    levels = THINGS[first].level, THINGS[second].level
    if levels == ("sky", "sky"):
        return (LEFT, RIGHT)
    if levels[0] == "sky":
        return (ABOVE,)
    if levels[1] == "sky":
        return (BELOW,)
    return (LEFT, RIGHT, FRONT, BEHIND)
