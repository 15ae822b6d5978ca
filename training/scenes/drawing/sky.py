"""Paints the sky with sun, moon, stars and clouds, and rain or falling snow."""

from training.scenes.drawing.paint import Colour, mix, times
from training.scenes.drawing.stage import Stage

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


def paint_sky(stage: Stage, time: str, weather: str, horizon: float) -> None:
    """Paint the sky, down to a little below the horizon (arguments as of `paint_backdrop`)."""
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
        _cloud(
            stage, x, y, rng.uniform(0.8, 1.3) * (0.11 if clouds > 2 else 0.085), times(white, lit)
        )


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
            stage.oval(x + px * size, y + (py + shift) * size, r * size, r * size * 0.72, fill)


def paint_weather(stage: Stage, weather: str) -> None:
    """Draw rain or falling snow over the finished picture."""
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
