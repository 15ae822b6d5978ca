"""Colour, light and a pen: the few means that every picture is painted with."""

import random
from dataclasses import dataclass

from PIL import ImageDraw

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


class Pen:
    """Draws in the unit box of one thing: (0, 0) its upper left corner, (1, 1) its lower right."""

    def __init__(
        self,
        canvas: ImageDraw.ImageDraw,
        box: tuple[float, float, float, float],
        flipped: bool,
        line_width: float,
        light: Light,
    ) -> None:
        self.canvas = canvas
        self.x, self.y, self.w, self.h = box
        if flipped:
            self.x, self.w = self.x + self.w, -self.w
        self.line_width = max(int(line_width + 0.5), 1)
        self.light = light

    def lit(self, colour: Colour) -> Colour:
        """A colour that is not the thing's own (wheels, skin, wood) in the scene's light."""
        return times(colour, self.light.thing)

    def _to(self, points: Points) -> Points:
        return [(self.x + u * self.w, self.y + v * self.h) for u, v in points]

    def polygon(self, points: Points, fill: Colour, line: Colour | None = None) -> None:
        at = self._to(points)
        self.canvas.polygon(at, fill=fill)
        if line is not None:
            self.canvas.line([*at, at[0], at[1]], fill=line, width=self.line_width)

    def _corners(self, u0: float, v0: float, u1: float, v1: float) -> list[float]:
        x0, x1 = self.x + u0 * self.w, self.x + u1 * self.w
        if x0 > x1:
            x0, x1 = x1, x0
        return [x0, self.y + v0 * self.h, x1, self.y + v1 * self.h]

    def oval(
        self, u0: float, v0: float, u1: float, v1: float, fill: Colour, line: Colour | None = None
    ) -> None:
        at = self._corners(u0, v0, u1, v1)
        if line is None:
            self.canvas.ellipse(at, fill=fill)
        else:
            self.canvas.ellipse(at, fill=line)
            by = self.line_width
            if at[2] - at[0] > 2 * by and at[3] - at[1] > 2 * by:
                self.canvas.ellipse([at[0] + by, at[1] + by, at[2] - by, at[3] - by], fill=fill)

    def disc(self, u: float, v: float, r: float, fill: Colour, line: Colour | None = None) -> None:
        """A true circle; `r` in units of the box's height."""
        ru = r * self.h / abs(self.w)
        self.oval(u - ru, v - r, u + ru, v + r, fill, line)

    def block(
        self,
        u0: float,
        v0: float,
        u1: float,
        v1: float,
        fill: Colour,
        line: Colour | None = None,
        radius: float = 0.0,
    ) -> None:
        """A rectangle, with round corners of `radius` times the box's height."""
        at = self._corners(u0, v0, u1, v1)
        width = self.line_width if line is not None else 0
        if radius:
            self.canvas.rounded_rectangle(at, radius * self.h, fill, line, width)
        else:
            self.canvas.rectangle(at, fill, line, width)

    def slice(
        self, u0: float, v0: float, u1: float, v1: float, start: float, end: float, fill: Colour
    ) -> None:
        """A piece of an oval between two angles in degrees, clockwise from three o'clock."""
        if self.w < 0:
            start, end = 180 - end, 180 - start
        self.canvas.pieslice(self._corners(u0, v0, u1, v1), start, end, fill=fill)

    def stroke(self, points: Points, fill: Colour, width: float) -> None:
        """A line; `width` in units of the box's height, at least one outline wide."""
        self.canvas.line(
            self._to(points),
            fill=fill,
            width=max(int(width * self.h + 0.5), self.line_width),
            joint="curve" if len(points) > 2 else None,
        )
