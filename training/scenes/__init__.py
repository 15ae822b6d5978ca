"""Scenes: small drawn pictures with five English captions each, made from a seed.

- world/: `sample_scene` decides at random what is in a picture and where.
- drawing/: `draw_scene` makes the picture.
- language/: `write_captions` writes the captions; `SceneAccuracy` checks captions of a model.

The first three give the same result for the same seed on any machine. In all three folders a
*place* is one of the eight landscapes of `world.catalogue.PLACES`, such as `sea` or `city`.
"""

from training.scenes.drawing.picture import draw_scene
from training.scenes.language.captions import write_captions
from training.scenes.world.sampling import SPLITS, sample_scene
from training.scenes.world.scene import Group, Scene

__all__ = ["SPLITS", "Group", "Scene", "draw_scene", "sample_scene", "write_captions"]
