"""Colours, and how the light of a scene changes them."""

import random
from dataclasses import dataclass

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

#: Colour name -> red, green and blue, from 0 to 255.
PAINTS: dict[str, Colour] = {
    "red": (216, 34, 38),
    "orange": (247, 128, 22),
    "yellow": (252, 218, 36),
    "green": (38, 158, 62),
    "blue": (30, 84, 214),
    "purple": (124, 48, 172),
    "pink": (250, 128, 190),
    "white": (250, 250, 247),
    "black": (34, 34, 40),
}


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A mixture of two colours, with the fraction `share` of `other`."""
    keep = 1.0 - share
    return (
        int(one[0] * keep + other[0] * share + 0.5),
        int(one[1] * keep + other[1] * share + 0.5),
        int(one[2] * keep + other[2] * share + 0.5),
    )


def times(colour: Colour, by: tuple[float, float, float]) -> Colour:
    """A colour with each channel multiplied by a factor, at most 255."""
    return (
        min(int(colour[0] * by[0] + 0.5), 255),
        min(int(colour[1] * by[1] + 0.5), 255),
        min(int(colour[2] * by[2] + 0.5), 255),
    )


@dataclass(frozen=True)
class Light:
    """How time and weather change colours.

    Attributes:
        land: factors of red, green and blue for the landscape.
        thing: the same for things. They are nearer to 1, so that a red house is still red at night.
        dark: whether it is night.
    """

    land: tuple[float, float, float]
    thing: tuple[float, float, float]
    dark: bool

    @classmethod
    def of(cls, time: str, weather: str, rng: random.Random) -> "Light":
        """The light of a time and a weather; `rng` makes it a little brighter or darker."""
        land, thing = {
            "day": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
            "sunset": ((0.98, 0.78, 0.70), (1.0, 0.94, 0.90)),
            "night": ((0.34, 0.40, 0.60), (0.82, 0.82, 0.92)),
        }[time]
        dull = {"clear": 1.0, "cloudy": 0.92, "rain": 0.84, "snow": 0.95}[weather]
        level = rng.uniform(0.94, 1.05)
        return cls(
            land=(land[0] * dull * level, land[1] * dull * level, land[2] * dull * level),
            thing=(thing[0] * level, thing[1] * level, thing[2] * level),
            dark=time == "night",
        )


@dataclass(frozen=True)
class Paint:
    """The shades of one thing's colour.

    Attributes:
        body: of most of the thing.
        shade: of its darker side.
        shine: of its lighter side.
        line: of its outline.
    """

    body: Colour
    shade: Colour
    shine: Colour
    line: Colour

    @classmethod
    def of(cls, name: str, light: Light, rng: random.Random) -> "Paint":
        """The shades of a colour name under a light; `rng` changes the hue a little."""
        pure = PAINTS[name]
        drift = (rng.uniform(0.95, 1.05), rng.uniform(0.95, 1.05), rng.uniform(0.95, 1.05))
        body = times(times(pure, drift), light.thing)
        if name == "black":
            line = (176, 180, 190) if light.dark else (205, 208, 214)
            return cls(body, mix(body, (0, 0, 0), 0.35), mix(body, (255, 255, 255), 0.16), line)
        if name == "white":
            shade = mix(body, (120, 130, 150), 0.22)
            return cls(body, shade, mix(body, (255, 255, 255), 0.5), mix(body, (50, 55, 75), 0.66))
        shade = mix(body, (20, 10, 40), 0.20)
        shine = mix(body, (255, 255, 255), 0.22)
        rim = mix(body, (255, 255, 255), 0.55) if light.dark else mix(body, (15, 10, 30), 0.55)
        return cls(body, shade, shine, rim)
