"""Paints the background of a scene: one of the eight places, under its sky."""

from collections.abc import Callable

from training.scenes.drawing.paint import Colour, mix
from training.scenes.drawing.sky import paint_sky
from training.scenes.drawing.stage import Stage
from training.scenes.world.catalogue import SHORES


def paint_backdrop(stage: Stage, place: str, time: str, weather: str, horizon: float) -> None:
    """Paint sky and land over the whole canvas.

    Args:
        stage: the canvas.
        place: of `catalogue.PLACES`.
        time: of `catalogue.TIMES`.
        weather: of `catalogue.WEATHERS`.
        horizon: y in units of the centre square.
    """
    paint_sky(stage, time, weather, horizon)
    _PLACES[place](stage, horizon)


def _ripples(
    stage: Stage, top: float, bottom: float, colour: Colour, count: int, curved: bool
) -> None:
    """Short light strokes on water; the nearer ones are longer."""
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
    """Small flat dots on the ground; the nearer ones are larger."""
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
        stage.oval(
            x + points[-1][0] * tall, foot + points[-1][1] * tall, 0.1 * tall, 0.1 * tall, green
        )


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
            [
                (x - tall * 0.12, foot - tall * 0.6),
                (x, foot - tall),
                (x + tall * 0.12, foot - tall * 0.6),
            ],
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
                        stage.block(
                            u - 0.011, v - 0.012, u + 0.011, v + 0.014, lamp if on else glass
                        )
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
