"""Scenes: small illustrated pictures with five English captions each, drawn from a seed.

`sample_scene` decides what is in a picture, `draw_scene` paints it and `write_captions` puts it
into words. All three give the same result for the same seed on any machine.
"""

from training.scenes.drawing.picture import draw_scene
from training.scenes.language.captions import write_captions
from training.scenes.world.sampling import SPLITS, sample_scene
from training.scenes.world.scene import Group, Scene

__all__ = ["SPLITS", "Group", "Scene", "draw_scene", "sample_scene", "write_captions"]
