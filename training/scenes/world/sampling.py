"""Samples scenes at random: first the things, then their boxes.

In most scenes one thing is in the sky above another one, and most pairs of things that stand side
by side do so in one order only (see `catalogue.HELD_RELATIONS`). Whoever learns from such scenes
where things are, learns which things they are instead. So the training scenes are drawn with these
`ARRANGEMENTS` in these shares; those of the other splits are drawn as they come.

If the boxes do not fit, or one thing would hide too much of another, the whole scene is sampled
again. So in every scene the relation is true of the boxes, and all of them lie within the centre
square.
"""

import random

from training.scenes.world.catalogue import (
    ABOVE,
    BEHIND,
    BELOW,
    COLOURS,
    CONVERSE,
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
    GroupPlan,
    arrange_above,
    arrange_beside,
    arrange_in_depth,
    arrange_one,
    fits,
)
from training.scenes.world.scene import Box, Group, Scene

SPLITS = ("train", "val", "test", "compositional")

#: Relation -> the arrangement that has it.
_ARRANGEMENT = {
    LEFT: "beside",
    RIGHT: "beside",
    FRONT: "in depth",
    BEHIND: "in depth",
    ABOVE: "in the sky",
    BELOW: "in the sky",
}
#: Arrangement -> its share of the training scenes. `open` are those things that also occur in the
#: converse relation, so that their names do not tell the relation.
ARRANGEMENTS = {
    "alone": 0.18,
    "in the sky": 0.26,
    "beside": 0.08,
    "open beside": 0.22,
    "in depth": 0.06,
    "open in depth": 0.20,
}


def sample_scene(rng: random.Random, split: str) -> Scene:
    """Sample one scene of a split.

    Args:
        rng: gives the seed of the scene; one number is taken from it.
        split: `val` and `test` have the same distribution, and `train` the same things, colours and
            relations in other shares. In a scene of `compositional` every (colour, thing) pair is
            held out, and if there are two groups, so is at least one (thing, relation) pair.

    Raises:
        ValueError: another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    seed = rng.getrandbits(48)
    own = random.Random(seed)
    wanted = None
    if split == "train":
        wanted = own.choices(tuple(ARRANGEMENTS), tuple(ARRANGEMENTS.values()))[0]
    while True:
        scene = _attempt(own, seed, split == "compositional", wanted)
        if scene is not None:
            return scene


def _attempt(rng: random.Random, seed: int, held: bool, wanted: str | None = None) -> Scene | None:
    """A scene of held-out pairs or of the others; None if this attempt makes no valid scene.

    Args:
        rng: Decides everything.
        seed: Of the scene.
        held: Whether its pairs are the held-out ones.
        wanted: Its arrangement, one of `ARRANGEMENTS`; None for any.
    """
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
    if wanted is not None and _arrangement(names, relation) != wanted:
        return None
    horizon = HORIZONS[place] + rng.uniform(-0.025, 0.025)
    plans = [GroupPlan(rng, name, len(names)) for name in names]
    if relation is None:
        boxes = arrange_one(rng, plans[0], place, horizon)
    elif relation in (LEFT, RIGHT):
        boxes = arrange_beside(rng, plans, relation, place, horizon)
    elif relation in (FRONT, BEHIND):
        boxes = arrange_in_depth(rng, plans, relation, place, horizon)
    else:
        boxes = arrange_above(rng, plans, relation, place, horizon)
    if boxes is None or not fits(boxes):
        return None
    groups = []
    for plan, group_boxes in zip(plans, boxes, strict=True):
        held_colours = HELD_COLOURS[plan.name]
        colours = held_colours if held else [c for c in COLOURS if c not in held_colours]
        flip = rng.random() < 0.5
        groups.append(
            Group(
                thing=plan.name,
                colour=rng.choice(colours),
                size=plan.size,
                boxes=tuple(_rounded(box) for box in group_boxes),
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


def _arrangement(names: list[str], relation: str | None) -> str:
    """Which of `ARRANGEMENTS` these things in this relation are."""
    if relation is None:
        return "alone"
    name = _ARRANGEMENT[relation]
    if name == "in the sky" or held_relation(names[0], CONVERSE[relation], names[1]):
        return name
    return f"open {name}"


def _rounded(box: Box) -> Box:
    x, y, width, height = box
    return round(x, 4), round(y, 4), round(width, 4), round(height, 4)


def _possible(first: str, second: str) -> tuple[str, ...]:
    """The relations that `first` may have to `second`."""
    levels = THINGS[first].level, THINGS[second].level
    if levels == ("sky", "sky"):
        return (LEFT, RIGHT)
    if levels[0] == "sky":
        return (ABOVE,)
    if levels[1] == "sky":
        return (BELOW,)
    return (LEFT, RIGHT, FRONT, BEHIND)
