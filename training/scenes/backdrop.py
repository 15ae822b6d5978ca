"""Paints what lies behind the things: the sky with its lights and clouds, and the eight places."""

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from training.scenes.paint import Colour, Light, mix, times

SHORES = {"lake": 0.36, "beach": 0.25}
"""How far below the horizon the far water ends and the near ground begins."""

_SKIES: dict[str, tuple[Colour, ...]] = {
    "day": ((84, 162, 228), (146, 200, 240), (214, 236, 248)),
    "sunset": ((104, 78, 150), (236, 132, 104), (255, 206, 128)),
    "night": ((12, 17, 48), (26, 36, 82), (58, 72, 122)),
}
_DULL: dict[str, tuple[Colour, float]] = {
    "clear": ((0, 0, 0), 0.0),
    "cloudy": ((176, 186, 196), 0.62),
    "rain": ((112, 124, 140), 0.74),
    "snow": ((196, 204, 216), 0.70),
}


class Stage:
    """The canvas, larger than the picture, and where the centre square lies on it.

    Lengths given to its methods are in units of the square; x runs from `left` to `right`, which
    lie outside 0..1 in a wide picture, y from `top` to `bottom` likewise in a tall one.
    """

    def __init__(self, width: int, height: int, light: Light, rng: random.Random) -> None:
        self.image = Image.new("RGB", (width, height))
        self.draw = ImageDraw.Draw(self.image)
        self.glass = ImageDraw.Draw(self.image, "RGBA")  # draws with see-through colours
        self.unit = min(width, height)
        self.x0, self.y0 = (width - self.unit) / 2, (height - self.unit) / 2
        self.left, self.top = -self.x0 / self.unit, -self.y0 / self.unit
        self.right, self.bottom = 1 - self.left, 1 - self.top
        self.light = light
        self.rng = rng

    def x(self, x: float) -> float:
        return self.x0 + x * self.unit

    def y(self, y: float) -> float:
        return self.y0 + y * self.unit

    def land(self, colour: Colour) -> Colour:
        """A colour of the landscape in the scene's light, a little different each time."""
        drift = self.rng.uniform(0.96, 1.04)
        light = self.light.land
        return times(colour, (light[0] * drift, light[1] * drift, light[2] * drift))

    def gradient(self, top: float, bottom: float, stops: tuple[Colour, ...]) -> None:
        """A band over the whole width, from one height to another."""
        first, last = max(int(self.y(top)), 0), min(int(self.y(bottom) + 1), self.image.height)
        if last <= first:
            return
        strip = Image.frombytes("RGB", (1, len(stops)), bytes(v for c in stops for v in c))
        strip = strip.resize((1, last - first), Image.Resampling.BILINEAR)
        self.image.paste(strip.resize((self.image.width, last - first), 0), (0, first))

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self.draw.polygon([(self.x(x), self.y(y)) for x, y in points], fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        pen = self.glass if len(fill) == 4 else self.draw
        at = (self.x(x - rx), self.y(y - ry), self.x(x + rx), self.y(y + ry))
        pen.ellipse(at, fill=fill)

    def block(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.draw.rectangle((self.x(x0), self.y(y0), self.x(x1), self.y(y1)), fill=fill)

    def ridge(
        self, y: float, height: float, fill: Colour, waves: float = 2.0, sharp: bool = False
    ) -> None:
        """Hills (or, sharp, mountains) that rise `height` above y, down to the lower edge."""
        a, b = self.rng.uniform(0, math.tau), self.rng.uniform(0, math.tau)
        steps = 9 if sharp else 26
        points = []
        for i in range(steps + 1):
            x = self.left + (self.right - self.left) * i / steps
            if sharp:
                rise = self.rng.uniform(0.55, 1.0) if i % 2 else self.rng.uniform(0.0, 0.35)
            else:
                rise = 0.5 + 0.3 * math.sin(a + waves * 3 * x) + 0.2 * math.sin(b + waves * 7 * x)
            points.append((x, y - height * rise))
        self.polygon([(self.left, self.bottom), *points, (self.right, self.bottom)], fill)


def paint_backdrop(
    stage: Stage, place: str, time: str, weather: str, horizon: float
) -> None:
    """Paints sky and land of a scene over the whole canvas."""
    _sky(stage, time, weather, horizon)
    _PLACES[place](stage, horizon)


def paint_weather(stage: Stage, weather: str) -> None:
    """Draws rain or falling snow over the finished picture."""
    rng, unit = stage.rng, stage.unit
    wide, tall = stage.right - stage.left, stage.bottom - stage.top
    if weather == "rain":
        slant = rng.uniform(-0.25, 0.25)
        width = max(int(unit * 0.005), 1)
        for _ in range(int(70 * wide * tall)):
            x = stage.x(stage.left + rng.random() * wide)
            y = stage.y(stage.top + rng.random() * tall)
            length = unit * rng.uniform(0.04, 0.075)
            end = (x + slant * length, y + length)
            stage.glass.line([(x, y), end], fill=(225, 235, 250, 135), width=width)
    elif weather == "snow":
        for _ in range(int(75 * wide * tall)):
            x = stage.left + rng.random() * wide
            y = stage.top + rng.random() * tall
            r = rng.uniform(0.004, 0.0095)
            stage.oval(x, y, r, r, (252, 253, 255))


def _sky(stage: Stage, time: str, weather: str, horizon: float) -> None:
    rng = stage.rng
    grey, share = _DULL[weather]
    level = {"day": 1.0, "sunset": 0.80, "night": 0.28}[time]
    warmth = {"day": (1.0, 1.0, 1.0), "sunset": (1.12, 0.92, 0.90), "night": (0.8, 0.9, 1.25)}[time]
    dull = times(grey, (level * warmth[0], level * warmth[1], level * warmth[2]))
    share *= {"day": 1.0, "sunset": 0.62, "night": 0.8}[time]
    drift = rng.uniform(0.96, 1.04)
    stops = tuple(
        times(mix(c, mix(dull, (255, 255, 255), 0.10 * i), share), (drift, drift, drift))
        for i, c in enumerate(_SKIES[time])
    )
    stage.gradient(stage.top, horizon + 0.03, stops)
    if time == "night" and weather == "clear":
        for _ in range(int(55 * (stage.right - stage.left) * (1 - stage.top))):
            x = stage.left + rng.random() * (stage.right - stage.left)
            y = stage.top + rng.random() * (horizon - stage.top)
            r = rng.choice((0.003, 0.004, 0.0065))
            stage.oval(x, y, r, r, (255, 250, 220))
    if weather in ("clear", "cloudy"):
        _sun_or_moon(stage, time, weather, horizon)
    clouds = {"clear": rng.choice((0, 1, 2)), "cloudy": 7, "rain": 8, "snow": 6}[weather]
    if time == "night" and weather == "clear":
        clouds = 0
    white = mix((252, 252, 255), (150, 160, 176), {"clear": 0, "rain": 0.8}.get(weather, 0.18))
    lit = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.74, 0.70), "night": (0.36, 0.41, 0.58)}[time]
    for i in range(clouds):
        across = (i + rng.uniform(0.1, 0.9)) / clouds
        x = stage.left + (stage.right - stage.left) * across
        y = rng.uniform(min(0.06, stage.top + 0.1), horizon * 0.62)
        _cloud(stage, x, y, rng.uniform(0.8, 1.3) * (0.11 if clouds > 2 else 0.085), times(white, lit))


def _sun_or_moon(stage: Stage, time: str, weather: str, horizon: float) -> None:
    rng = stage.rng
    x = rng.uniform(0.1, 0.9)
    if time == "night":
        y = rng.uniform(0.09, 0.2)
        if weather == "clear":
            for r, strength in ((0.13, 22), (0.09, 30)):
                stage.oval(x, y, r, r, (220, 225, 255, strength))
        stage.oval(x, y, 0.05, 0.05, (246, 240, 208))
        stage.oval(x - 0.015, y - 0.012, 0.011, 0.011, (226, 219, 184))
        stage.oval(x + 0.017, y + 0.014, 0.008, 0.008, (226, 219, 184))
        return
    if weather == "cloudy" and time == "day":
        return
    y = rng.uniform(0.09, 0.2) if time == "day" else horizon - rng.uniform(0.0, 0.05)
    core, glow = (255, 240, 170), (255, 246, 200)
    radius = 0.06
    if time == "sunset":
        core, glow, radius = (255, 226, 140), (255, 196, 120), 0.09
    for r, strength in ((2.4, 36), (1.7, 50)):
        stage.oval(x, y, radius * r, radius * r, (*glow, strength))
    stage.oval(x, y, radius, radius, core)


def _cloud(stage: Stage, x: float, y: float, size: float, colour: Colour) -> None:
    rng = stage.rng
    low = mix(colour, (120, 130, 155), 0.16)
    puffs = [(-1.0, 0.18, 0.55), (-0.35, -0.12, 0.75), (0.4, -0.02, 0.7), (1.0, 0.22, 0.5)]
    puffs = [(px * rng.uniform(0.9, 1.15), py, r * rng.uniform(0.85, 1.1)) for px, py, r in puffs]
    for shift, fill in ((0.1, low), (0.0, colour)):
        for px, py, r in puffs:
            stage.oval(
                x + px * size, y + (py + shift) * size, r * size, r * size * 0.72, fill
            )


def _ripples(
    stage: Stage, top: float, bottom: float, colour: Colour, count: int, curved: bool
) -> None:
    """Short light strokes on water, longer the nearer they are."""
    rng = stage.rng
    width = max(int(stage.unit * 0.006), 1)
    for i in range(count):
        depth = (i + rng.random()) / count
        y = top + (bottom - top) * depth
        x = stage.left + rng.random() * (stage.right - stage.left)
        half = 0.02 + 0.035 * depth
        if curved:
            for side in (-1, 1):
                left = stage.x(x + (side - 1) * half)
                at = (left, stage.y(y), left + 2 * half * stage.unit, stage.y(y + half * 0.8))
                stage.draw.arc(at, 200, 340, fill=colour, width=width)
        else:
            stage.draw.line(
                [(stage.x(x - half), stage.y(y)), (stage.x(x + half), stage.y(y))],
                fill=colour, width=width,
            )  # fmt: skip


def _sea(stage: Stage, horizon: float) -> None:
    far, near = stage.land((96, 176, 200)), stage.land((16, 92, 128))
    stage.gradient(horizon, stage.bottom, (far, mix(far, near, 0.6), near))
    _ripples(stage, horizon + 0.03, stage.bottom, mix(far, (235, 248, 255), 0.35), 22, True)
    if stage.rng.random() < 0.4:
        x = stage.rng.uniform(0.0, 1.0)
        isle = mix(stage.land((98, 132, 128)), far, 0.35)
        stage.polygon(
            [(x - 0.2, horizon), (x - 0.08, horizon - 0.05), (x, horizon - 0.03),
             (x + 0.08, horizon - 0.06), (x + 0.2, horizon)],
            isle,
        )  # fmt: skip


def _lake(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.ridge(horizon, 0.22, stage.land((142, 160, 178)), sharp=True)
    stage.ridge(horizon + 0.01, 0.10, stage.land((104, 148, 116)))
    shore = horizon + SHORES["lake"]
    far, near = stage.land((138, 196, 208)), stage.land((60, 138, 164))
    stage.gradient(horizon + 0.02, shore + 0.06, (far, near))
    _ripples(stage, horizon + 0.05, shore - 0.01, mix(near, (240, 250, 255), 0.4), 11, False)
    stage.ridge(shore + 0.03, 0.045, stage.land((112, 160, 74)), 1.4)
    stage.gradient(
        shore + 0.035, stage.bottom, (stage.land((122, 172, 82)), stage.land((92, 138, 62)))
    )
    reed, head = stage.land((72, 116, 54)), stage.land((118, 82, 48))
    width = max(int(stage.unit * 0.007), 1)
    for x in (stage.left + 0.03, stage.right - 0.03):
        for _ in range(5):
            foot = x + rng.uniform(-0.03, 0.03)
            tip = shore - rng.uniform(0.02, 0.1)
            lean = foot + rng.uniform(-0.015, 0.015)
            stage.draw.line(
                [(stage.x(foot), stage.y(shore + 0.05)), (stage.x(lean), stage.y(tip))],
                fill=reed, width=width,
            )  # fmt: skip
            stage.oval(lean, tip, 0.007, 0.02, head)


def _beach(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    shore = horizon + SHORES["beach"]
    far, near = stage.land((84, 172, 196)), stage.land((96, 198, 204))
    stage.gradient(horizon, shore + 0.05, (mix(far, (10, 70, 110), 0.35), far, near))
    _ripples(stage, horizon + 0.03, shore - 0.03, mix(near, (240, 250, 255), 0.5), 9, True)
    stage.ridge(shore + 0.012, 0.05, mix(near, (255, 255, 255), 0.7), 1.2)
    state = rng.getstate()
    stage.ridge(shore + 0.035, 0.05, stage.land((240, 218, 168)), 1.2)
    rng.setstate(state)
    stage.gradient(
        shore + 0.045, stage.bottom, (stage.land((242, 220, 170)), stage.land((222, 190, 132)))
    )
    _specks(stage, shore + 0.07, stage.land((206, 172, 116)), 24)
    for _ in range(3):
        x, y = rng.uniform(0, 1), rng.uniform(shore + 0.1, 0.98)
        stage.oval(x, y, 0.012, 0.008, stage.land((250, 236, 220)))


def _specks(stage: Stage, top: float, colour: Colour, count: int) -> None:
    """Small flat dots on the ground, larger when nearer."""
    rng = stage.rng
    for _ in range(count):
        depth = rng.random()
        y = top + (stage.bottom - top) * depth
        x = stage.left + rng.random() * (stage.right - stage.left)
        stage.oval(x, y, 0.004 + 0.006 * depth, 0.002 + 0.003 * depth, colour)


def _tufts(stage: Stage, top: float, colour: Colour, count: int) -> None:
    rng = stage.rng
    width = max(int(stage.unit * 0.005), 1)
    for _ in range(count):
        depth = rng.random()
        x = stage.x(stage.left + rng.random() * (stage.right - stage.left))
        y = stage.y(top + (stage.bottom - top) * depth)
        size = stage.unit * (0.012 + 0.016 * depth)
        for lean in (-0.6, 0.0, 0.6):
            stage.draw.line([(x, y), (x + lean * size, y - size)], fill=colour, width=width)


def _meadow(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.ridge(horizon, 0.16, stage.land((150, 186, 168)), 1.3)
    stage.ridge(horizon + 0.03, 0.10, stage.land((142, 188, 110)), 1.7)
    grass = stage.land((156, 198, 92))
    stage.ridge(horizon + 0.07, 0.06, grass, 1.1)
    stage.gradient(horizon + 0.07, stage.bottom, (grass, stage.land((112, 164, 68))))
    _tufts(stage, horizon + 0.1, stage.land((92, 142, 58)), 22)
    for _ in range(16):
        depth = rng.random()
        x = stage.left + rng.random() * (stage.right - stage.left)
        y = horizon + 0.1 + (stage.bottom - horizon - 0.1) * depth
        r = 0.004 + 0.004 * depth
        stage.oval(x, y, r, r, stage.land(rng.choice(((250, 246, 226), (246, 232, 150)))))


def _forest(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    for depth, (rise, colour) in enumerate(
        ((0.46, (138, 172, 158)), (0.36, (88, 132, 112)), (0.27, (52, 96, 78)))
    ):
        fill = stage.land(colour)
        trunk = mix(fill, stage.land((70, 50, 40)), 0.6)
        step = 0.085 + 0.02 * depth
        x = stage.left - rng.random() * step
        while x < stage.right + step:
            tall = rise * rng.uniform(0.72, 1.08)
            half = step * rng.uniform(0.62, 0.8)
            foot = horizon + 0.02 * depth
            stage.block(x - 0.008, foot - 0.06, x + 0.008, foot + 0.02, trunk)
            foot -= 0.03
            for share in (0.0, 0.3, 0.58):
                low, wide = foot - tall * share * 0.9, half * (1 - 0.62 * share)
                top = foot - tall * min(share + 0.48, 1.0)
                stage.polygon([(x - wide, low), (x, top), (x + wide, low)], fill)
            x += step * rng.uniform(0.75, 1.15)
    floor = stage.land((116, 142, 82))
    stage.gradient(horizon + 0.02, stage.bottom, (floor, stage.land((92, 108, 62))))
    _tufts(stage, horizon + 0.07, stage.land((74, 100, 58)), 20)
    _specks(stage, horizon + 0.06, stage.land((150, 118, 76)), 14)


def _desert(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    x = rng.uniform(-0.1, 0.7)
    mesa = stage.land((206, 146, 112))
    stage.polygon(
        [(x, horizon), (x + 0.05, horizon - 0.13), (x + 0.25, horizon - 0.13),
         (x + 0.31, horizon)],
        mesa,
    )  # fmt: skip
    stage.ridge(horizon + 0.01, 0.08, stage.land((232, 186, 128)), 1.0)
    stage.ridge(horizon + 0.05, 0.07, stage.land((238, 200, 138)), 1.4)
    sand = stage.land((240, 206, 146))
    stage.gradient(horizon + 0.05, stage.bottom, (sand, stage.land((214, 164, 104))))
    stage.ridge(0.80, 0.05, stage.land((230, 188, 124)), 0.8)
    if stage.bottom > 0.82:
        stage.gradient(
            0.81, stage.bottom, (stage.land((230, 188, 124)), stage.land((208, 158, 98)))
        )
    for _ in range(rng.choice((1, 2, 2, 3))):
        x, foot = stage.left + rng.random() * (stage.right - stage.left), horizon + 0.06
        _cactus(stage, x, foot, rng.uniform(0.08, 0.12))


def _cactus(stage: Stage, x: float, foot: float, tall: float) -> None:
    green = stage.land((104, 142, 96))
    width = max(int(tall * 0.2 * stage.unit), 1)
    for points in (
        [(0.0, 0.0), (0.0, -1.0)],
        [(0.0, -0.4), (-0.3, -0.4), (-0.3, -0.75)],
        [(0.0, -0.3), (0.3, -0.3), (0.3, -0.62)],
    ):
        at = [(stage.x(x + u * tall), stage.y(foot + v * tall)) for u, v in points]
        stage.draw.line(at, fill=green, width=width, joint="curve")
        stage.oval(x + points[-1][0] * tall, foot + points[-1][1] * tall, 0.1 * tall, 0.1 * tall, green)


def _snow(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    stage.ridge(horizon, 0.26, stage.land((176, 192, 214)), sharp=True)
    stage.ridge(horizon + 0.02, 0.10, stage.land((212, 222, 236)), 1.3)
    pine = stage.land((112, 144, 148))
    for _ in range(9):
        x = stage.left + rng.random() * (stage.right - stage.left)
        tall = rng.uniform(0.06, 0.11)
        foot = horizon + rng.uniform(0.0, 0.03)
        stage.polygon([(x - tall * 0.3, foot), (x, foot - tall), (x + tall * 0.3, foot)], pine)
        stage.polygon(
            [(x - tall * 0.12, foot - tall * 0.6), (x, foot - tall), (x + tall * 0.12, foot - tall * 0.6)],
            stage.land((232, 238, 246)),
        )
    field = stage.land((226, 234, 244))
    stage.ridge(horizon + 0.06, 0.05, field, 1.2)
    stage.gradient(horizon + 0.06, stage.bottom, (field, stage.land((206, 218, 236))))
    shadow = stage.land((196, 210, 230))
    for _ in range(5):
        x, y = rng.uniform(stage.left, stage.right), rng.uniform(horizon + 0.14, stage.bottom)
        stage.oval(x, y, rng.uniform(0.06, 0.14), 0.008, shadow)


def _city(stage: Stage, horizon: float) -> None:
    rng = stage.rng
    lamp = (250, 226, 150)
    for low, high, colour in (
        (0.30, 0.50, (176, 188, 204)),
        (0.16, 0.36, (138, 150, 170)),
    ):
        near = high < 0.4
        x = stage.left - rng.random() * 0.08
        while x < stage.right:
            wide, tall = rng.uniform(0.11, 0.2), rng.uniform(low, high)
            fill = stage.land(colour)
            stage.block(x, horizon - tall, x + wide, horizon + 0.02, fill)
            if near:
                glass = mix(fill, (215, 228, 240), 0.35)
                columns, rows = max(int(wide / 0.045), 2), int(tall / 0.06)
                for i in range(columns):
                    for j in range(rows):
                        u = x + wide * (i + 0.5) / columns
                        v = horizon - tall + 0.035 + j * 0.06
                        on = stage.light.dark and rng.random() < 0.5
                        stage.block(u - 0.011, v - 0.012, u + 0.011, v + 0.014, lamp if on else glass)
            x += wide + 0.006
    walk = stage.land((204, 202, 198))
    stage.gradient(horizon, stage.bottom, (walk, mix(walk, (120, 118, 122), 0.2)))
    kerb, road = horizon + 0.05, stage.land((132, 134, 144))
    stage.gradient(kerb, stage.bottom, (mix(road, (255, 255, 255), 0.08), road))
    stage.block(stage.left, kerb - 0.006, stage.right, kerb + 0.006, stage.land((168, 168, 170)))
    line, dash = kerb + 0.5 * (1.0 - kerb), stage.land((236, 232, 214))
    x = stage.left - rng.random() * 0.2
    while x < stage.right:
        stage.polygon([(x, line + 0.008), (x + 0.012, line - 0.008), (x + 0.122, line - 0.008),
                       (x + 0.11, line + 0.008)], dash)  # fmt: skip
        x += 0.2


_PLACES: dict[str, Callable[[Stage, float], None]] = {
    "sea": _sea,
    "lake": _lake,
    "beach": _beach,
    "meadow": _meadow,
    "forest": _forest,
    "desert": _desert,
    "snow": _snow,
    "city": _city,
}
