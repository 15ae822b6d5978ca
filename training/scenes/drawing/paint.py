"""Colour and light: the palette that every picture is painted with."""

import random
from dataclasses import dataclass

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

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
    """`share` of `other` in `one`."""
    keep = 1.0 - share
    return (
        int(one[0] * keep + other[0] * share + 0.5),
        int(one[1] * keep + other[1] * share + 0.5),
        int(one[2] * keep + other[2] * share + 0.5),
    )


def times(colour: Colour, by: tuple[float, float, float]) -> Colour:
    """A colour under a light: each channel multiplied, at most 255."""
    return (
        min(int(colour[0] * by[0] + 0.5), 255),
        min(int(colour[1] * by[1] + 0.5), 255),
        min(int(colour[2] * by[2] + 0.5), 255),
    )


@dataclass(frozen=True)
class Light:
    """How the hour and the weather change colours, as factors of red, green and blue.

    The land takes all of the light's tint. Things take little of it: a red house must not turn
    brown at night.
    """

    land: tuple[float, float, float]
    thing: tuple[float, float, float]
    dark: bool

    @classmethod
    def of(cls, time: str, weather: str, rng: random.Random) -> "Light":
        """The light of an hour and a weather, a little brighter or darker each time."""
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
    """The shades of one thing's colour: its body, a shaded and a lit side, and its outline."""

    body: Colour
    shade: Colour
    shine: Colour
    line: Colour

    @classmethod
    def of(cls, name: str, light: Light, rng: random.Random) -> "Paint":
        """A colour by its name, with a slight drift in hue, under a light."""
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
