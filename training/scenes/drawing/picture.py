"""Draws a scene: background, then the things from the farthest to the nearest, then rain or snow.

The picture is drawn at twice its size and then reduced, which smooths the edges.
"""

import random

from PIL import Image

from training.scenes.drawing.backdrop import paint_backdrop
from training.scenes.drawing.paint import Light, Paint
from training.scenes.drawing.pen import Pen
from training.scenes.drawing.sky import paint_weather
from training.scenes.drawing.stage import Stage
from training.scenes.drawing.things import draw_thing
from training.scenes.world.catalogue import THINGS
from training.scenes.world.scene import Box, Scene

#: Size at which a picture is drawn over its own size.
SUPERSAMPLING = 2


def draw_scene(scene: Scene, width: int, height: int) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to draw; equal scenes give equal pictures.
        width: of the picture in pixels. All things lie in the centre square; a picture that is not
            square shows more of the landscape around it.
        height: of the picture in pixels.

    Returns:
        An RGB image.
    """
    rng = random.Random(scene.seed * 2 + 1)
    light = Light.of(scene.time, scene.weather, rng)
    stage = Stage(width * SUPERSAMPLING, height * SUPERSAMPLING, light, rng)
    paint_backdrop(stage, scene.place, scene.time, scene.weather, scene.horizon)
    order = []
    for group in scene.groups:
        paint = Paint.of(group.colour, light, rng)
        variant = rng.getrandbits(32)
        for box, flipped in zip(group.boxes, group.flipped, strict=True):
            order.append((box[1] + box[3], group.thing, box, flipped, paint, variant))
    order.sort(key=lambda item: item[0])
    for _, thing, box, flipped, paint, variant in order:
        _ground(stage, thing, box, scene.place)
        at = (stage.x(box[0]), stage.y(box[1]), box[2] * stage.unit, box[3] * stage.unit)
        pen = Pen(stage.draw, at, flipped, stage.unit * 0.0075, light)
        draw_thing(thing, pen, paint, random.Random(variant))
    paint_weather(stage, scene.weather)
    return stage.image.reduce(SUPERSAMPLING)


def _ground(stage: Stage, thing: str, box: Box, place: str) -> None:
    """Draw the shadow of a thing on the ground, or its wake in the water; none in the sky."""
    x, y, w, h = box
    level = THINGS[thing].level
    if level == "sky":
        return
    if level == "water" or place == "sea":
        stage.oval(x + w / 2, y + h * 0.965, w * 0.52, h * 0.045, (235, 248, 255, 110))
        return
    stage.oval(x + w / 2, y + h * 0.985, w * 0.54, max(h * 0.04, 0.012), (20, 24, 50, 70))
