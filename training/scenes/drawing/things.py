"""Draws each kind of thing in its box; most of it has the colour of its group."""

import random
from collections.abc import Callable

from training.scenes.drawing.paint import Paint
from training.scenes.drawing.pen import Pen

_WOOD = (128, 84, 52)
_CREAM = (250, 240, 216)
_GLASS = (196, 226, 240)
_DARK = (44, 44, 52)
_GREY = (150, 154, 162)
_SKIN = ((244, 204, 170), (224, 172, 130), (164, 112, 78), (118, 78, 54))
_HAIR = ((58, 40, 32), (104, 66, 38), (40, 36, 40), (196, 148, 84))
_LEAF = (74, 138, 66)


def draw_thing(name: str, pen: Pen, paint: Paint, rng: random.Random) -> None:
    """Draw one thing of `catalogue.THINGS`; `rng` chooses between its variants."""
    _DRAWINGS[name](pen, paint, rng)


def _glass(pen: Pen) -> tuple[int, int, int]:
    """Colour of windows: pale by day, yellow by night."""
    return (255, 228, 150) if pen.light.dark else pen.lit(_GLASS)


def _boat(pen: Pen, paint: Paint, rng: random.Random) -> None:
    wood = pen.lit(_WOOD)
    pen.stroke([(0.5, 0.02), (0.5, 0.76)], wood, 0.028)
    pen.polygon([(0.54, 0.03), (0.97, 0.68), (0.54, 0.68)], paint.body, paint.line)
    pen.polygon([(0.46, 0.12), (0.46, 0.68), (0.12, 0.68)], paint.shine, paint.line)
    pen.polygon([(0.0, 0.73), (1.0, 0.73), (0.86, 0.96), (0.16, 0.96)], paint.body, paint.line)
    pen.polygon([(0.09, 0.87), (0.91, 0.87), (0.85, 0.95), (0.17, 0.95)], paint.shade)
    pen.polygon([(0.5, 0.0), (0.64, 0.04), (0.5, 0.08)], pen.lit(_CREAM))


def _house(pen: Pen, paint: Paint, rng: random.Random) -> None:
    pen.block(0.72, 0.06, 0.83, 0.34, paint.shade, paint.line)
    pen.block(0.08, 0.42, 0.92, 1.0, paint.body, paint.line)
    pen.block(0.09, 0.43, 0.91, 0.49, paint.shade)
    pen.polygon([(0.0, 0.46), (0.5, 0.02), (1.0, 0.46)], paint.shade, paint.line)
    cream, glass = pen.lit(_CREAM), _glass(pen)
    door = rng.choice((0.42, 0.18))
    pen.block(door, 0.66, door + 0.17, 1.0, pen.lit(_WOOD), cream)
    for u in (0.17, 0.67) if door == 0.42 else (0.48, 0.7):
        pen.block(u, 0.57, u + 0.16, 0.76, glass, cream)
        pen.stroke([(u + 0.08, 0.58), (u + 0.08, 0.75)], cream, 0.012)
    pen.disc(0.5, 0.29, 0.065, glass, cream)


def _tree(pen: Pen, paint: Paint, rng: random.Random) -> None:
    wood = pen.lit(_WOOD)
    pen.polygon([(0.43, 0.6), (0.57, 0.6), (0.61, 1.0), (0.39, 1.0)], wood)
    puffs = [(0.26, 0.46, 0.19), (0.74, 0.46, 0.19), (0.5, 0.54, 0.2), (0.34, 0.25, 0.2),
             (0.66, 0.25, 0.2), (0.5, 0.19, 0.185)]  # fmt: skip
    edge = 1.1 * pen.line_width / pen.h
    for u, v, r in puffs:
        pen.disc(u, v, r + edge, paint.line)
    for u, v, r in puffs:
        pen.disc(u, v, r, paint.body)
    for u, v, r in puffs[:3]:
        pen.disc(u, v + 0.05, r * 0.7, paint.shade)
    pen.disc(0.5, 0.36, 0.17, paint.body)
    for u, v in ((0.36, 0.2), (0.56, 0.14), (0.25, 0.4)):
        pen.disc(u, v, 0.055, paint.shine)


def _wheel(pen: Pen, u: float, v: float, r: float) -> None:
    pen.disc(u, v, r, pen.lit(_DARK), pen.lit((96, 98, 106)))
    pen.disc(u, v, r * 0.45, pen.lit(_GREY))


def _car(pen: Pen, paint: Paint, rng: random.Random) -> None:
    pen.polygon([(0.2, 0.44), (0.31, 0.06), (0.68, 0.06), (0.84, 0.44)], paint.body, paint.line)
    glass = _glass(pen)
    pen.polygon([(0.27, 0.41), (0.345, 0.14), (0.49, 0.14), (0.49, 0.41)], glass)
    pen.polygon([(0.53, 0.41), (0.53, 0.14), (0.66, 0.14), (0.765, 0.41)], glass)
    pen.block(0.0, 0.4, 1.0, 0.84, paint.body, paint.line, radius=0.16)
    pen.block(0.03, 0.68, 0.97, 0.8, paint.shade)
    pen.stroke([(0.51, 0.45), (0.51, 0.78)], paint.line, 0.012)
    pen.block(0.56, 0.52, 0.64, 0.56, paint.line)
    pen.oval(0.92, 0.5, 0.99, 0.62, pen.lit((255, 240, 180)))
    pen.block(0.005, 0.5, 0.04, 0.6, pen.lit((190, 50, 50)))
    for u in (0.22, 0.78):
        _wheel(pen, u, 0.82, 0.175)


def _bus(pen: Pen, paint: Paint, rng: random.Random) -> None:
    pen.block(0.0, 0.02, 1.0, 0.88, paint.body, paint.line, radius=0.12)
    pen.block(0.02, 0.66, 0.98, 0.84, paint.shade)
    glass = _glass(pen)
    for i in range(4):
        u = 0.06 + i * 0.185
        pen.block(u, 0.15, u + 0.145, 0.42, glass, paint.line)
    pen.block(0.82, 0.15, 0.95, 0.8, glass, paint.line)
    pen.stroke([(0.885, 0.16), (0.885, 0.79)], paint.line, 0.012)
    pen.block(0.03, 0.51, 0.77, 0.56, paint.shine)
    for u in (0.22, 0.68):
        _wheel(pen, u, 0.86, 0.14)


def _dog(pen: Pen, paint: Paint, rng: random.Random) -> None:
    body, line = paint.body, paint.line
    pen.stroke([(0.1, 0.5), (0.03, 0.34), (0.05, 0.18)], line, 0.1)
    pen.stroke([(0.1, 0.5), (0.03, 0.34), (0.05, 0.2)], body, 0.066)
    for u in (0.22, 0.62):
        pen.block(u, 0.66, u + 0.11, 0.99, paint.shade, line)
    for u in (0.1, 0.51):
        pen.block(u, 0.66, u + 0.115, 1.0, body, line)
    pen.block(0.07, 0.38, 0.76, 0.78, body, line, radius=0.19)
    pen.polygon([(0.55, 0.5), (0.6, 0.22), (0.8, 0.3), (0.75, 0.6)], body)
    pen.block(0.76, 0.22, 0.995, 0.46, body, line, radius=0.1)
    pen.disc(0.71, 0.25, 0.205, body, line)
    pen.block(0.74, 0.24, 0.93, 0.43, body, radius=0.08)
    pen.oval(0.5, 0.08, 0.66, 0.46, paint.shade, line)
    pen.oval(0.93, 0.2, 1.0, 0.29, pen.lit(_DARK))
    pen.disc(0.775, 0.19, 0.034, pen.lit((252, 252, 252)))
    pen.disc(0.782, 0.195, 0.02, pen.lit((20, 20, 24)))
    pen.stroke([(0.6, 0.52), (0.72, 0.54)], pen.lit((230, 190, 70)), 0.05)


def _cat(pen: Pen, paint: Paint, rng: random.Random) -> None:
    body, line = paint.body, paint.line
    pen.stroke([(0.7, 0.92), (0.93, 0.86), (0.94, 0.66), (0.86, 0.56)], line, 0.105)
    pen.stroke([(0.7, 0.92), (0.93, 0.86), (0.94, 0.66), (0.87, 0.58)], body, 0.07)
    pen.oval(0.16, 0.4, 0.8, 1.02, body, line)
    pen.oval(0.33, 0.56, 0.63, 0.98, paint.shine)
    for u in (0.3, 0.52):
        pen.oval(u, 0.88, u + 0.16, 1.0, body, line)
    for tip, inner in ((0.14, 0.42), (0.82, 0.54)):
        pen.polygon([(tip, 0.0), (inner, 0.1), (tip, 0.28)], body, line)
    pen.oval(0.1, 0.08, 0.86, 0.53, body, line)
    for u in (0.33, 0.63):
        pen.oval(u - 0.055, 0.22, u + 0.055, 0.34, pen.lit((236, 244, 190)))
        pen.oval(u - 0.022, 0.22, u + 0.022, 0.34, pen.lit((20, 20, 24)))
    pen.polygon([(0.44, 0.37), (0.52, 0.37), (0.48, 0.41)], pen.lit((240, 150, 150)))
    for side in (-1, 1):
        for v in (0.38, 0.43):
            pen.stroke([(0.48 + side * 0.14, 0.4), (0.48 + side * 0.4, v)], line, 0.008)


def _person(pen: Pen, paint: Paint, rng: random.Random) -> None:
    skin, hair = pen.lit(rng.choice(_SKIN)), pen.lit(rng.choice(_HAIR))
    legs = pen.lit((74, 78, 96))
    for u in (0.34, 0.53):
        pen.block(u, 0.76, u + 0.14, 0.98, legs)
        pen.block(u - 0.02, 0.95, u + 0.17, 1.0, pen.lit(_DARK))
    for side in (-1, 1):
        hand = (0.5 + side * 0.43, 0.61)
        pen.stroke([(0.5 + side * 0.18, 0.34), hand], paint.line, 0.085)
        pen.stroke([(0.5 + side * 0.18, 0.34), hand], paint.body, 0.062)
        pen.disc(*hand, 0.034, skin)
    pen.polygon([(0.33, 0.28), (0.67, 0.28), (0.9, 0.8), (0.1, 0.8)], paint.body, paint.line)
    pen.polygon([(0.52, 0.3), (0.66, 0.3), (0.87, 0.785), (0.58, 0.785)], paint.shade)
    for v in (0.4, 0.52, 0.64):
        pen.disc(0.5, v, 0.016, pen.lit(_CREAM))
    long_hair = rng.random() < 0.5
    if long_hair:
        pen.oval(0.24, 0.06, 0.76, 0.34, hair)
    pen.disc(0.5, 0.16, 0.115, skin)
    if not long_hair:
        pen.slice(0.27, 0.035, 0.73, 0.285, 180, 360, hair)
    for u in (0.43, 0.57):
        pen.disc(u, 0.175, 0.013, pen.lit(_DARK))
    pen.slice(0.25, 0.0, 0.75, 0.25, 180, 360, paint.body)
    pen.block(0.2, 0.108, 0.8, 0.14, paint.shade)
    pen.disc(0.5, 0.012, 0.022, paint.body)


def _flower(pen: Pen, paint: Paint, rng: random.Random) -> None:
    leaf = pen.lit(_LEAF)
    pen.stroke([(0.5, 0.4), (0.5, 1.0)], leaf, 0.04)
    pen.polygon([(0.5, 0.9), (0.2, 0.68), (0.08, 0.7), (0.22, 0.86)], leaf)
    pen.polygon([(0.5, 0.96), (0.78, 0.74), (0.93, 0.76), (0.78, 0.92)], leaf)
    petals = [
        (0.5, 0.135), (0.78, 0.24), (0.78, 0.44), (0.5, 0.535), (0.22, 0.44), (0.22, 0.24)
    ]  # fmt: skip
    edge = 1.0 * pen.line_width / pen.h
    for u, v in petals:
        pen.disc(u, v, 0.13 + edge, paint.line)
    for u, v in petals:
        pen.disc(u, v, 0.13, paint.body)
    for u, v in petals:
        pen.disc(0.5 + (u - 0.5) * 0.75, 0.335 + (v - 0.335) * 0.75, 0.06, paint.shade)
    pen.disc(0.5, 0.335, 0.095, pen.lit((116, 74, 40)), pen.lit((84, 52, 30)))
    pen.disc(0.48, 0.32, 0.04, pen.lit((160, 108, 60)))


def _umbrella(pen: Pen, paint: Paint, rng: random.Random) -> None:
    wood = pen.lit((150, 112, 78))
    pen.stroke([(0.5, 0.05), (0.5, 1.0)], wood, 0.035)
    edge = pen.line_width / pen.h
    pen.slice(-edge, 0.05 - edge, 1 + edge, 1.05 + edge, 180, 360, paint.line)
    pen.slice(0.0, 0.05, 1.0, 1.05, 180, 360, paint.body)
    pen.slice(0.18, 0.05, 0.82, 1.05, 180, 360, paint.shine)
    pen.slice(0.36, 0.05, 0.64, 1.05, 180, 360, paint.body)
    for i in range(5):
        pen.oval(i * 0.2, 0.5, i * 0.2 + 0.2, 0.62, (paint.body, paint.shade)[i % 2])
    pen.disc(0.5, 0.045, 0.03, paint.shade)


def _tent(pen: Pen, paint: Paint, rng: random.Random) -> None:
    pen.polygon([(0.36, 0.06), (0.78, 0.06), (1.0, 1.0), (0.7, 1.0)], paint.shade, paint.line)
    pen.polygon([(0.0, 1.0), (0.37, 0.03), (0.74, 1.0)], paint.body, paint.line)
    pen.polygon([(0.22, 1.0), (0.37, 0.42), (0.52, 1.0)], pen.lit((58, 52, 60)))
    pen.polygon([(0.37, 0.42), (0.52, 1.0), (0.6, 1.0)], paint.shine)
    pole = pen.lit(_WOOD)
    pen.stroke([(0.37, 0.0), (0.37, 0.08)], pole, 0.03)


def _lighthouse(pen: Pen, paint: Paint, rng: random.Random) -> None:
    rock = pen.lit((128, 124, 122))
    pen.polygon([(0.0, 1.0), (0.12, 0.92), (0.5, 0.9), (0.88, 0.92), (1.0, 1.0)], rock)
    pen.polygon([(0.33, 0.24), (0.67, 0.24), (0.82, 0.95), (0.18, 0.95)], paint.body, paint.line)
    pen.polygon([(0.54, 0.25), (0.66, 0.25), (0.8, 0.94), (0.56, 0.94)], paint.shade)
    cream = pen.lit(_CREAM)
    pen.polygon([(0.265, 0.53), (0.735, 0.53), (0.765, 0.62), (0.235, 0.62)], cream)
    lamp = (255, 240, 150) if pen.light.dark else pen.lit((250, 236, 170))
    pen.block(0.36, 0.12, 0.64, 0.23, lamp, paint.line)
    pen.block(0.25, 0.215, 0.75, 0.25, pen.lit(_DARK))
    pen.polygon([(0.3, 0.125), (0.5, 0.01), (0.7, 0.125)], paint.body, paint.line)
    pen.block(0.44, 0.36, 0.56, 0.43, _glass(pen), paint.line)
    pen.block(0.41, 0.8, 0.59, 0.94, pen.lit(_WOOD), cream)


def _bird(pen: Pen, paint: Paint, rng: random.Random) -> None:
    body, line = paint.body, paint.line
    pen.polygon([(0.22, 0.6), (0.0, 0.5), (0.02, 0.72), (0.1, 0.8)], paint.shade, line)
    pen.polygon([(0.9, 0.5), (1.0, 0.56), (0.9, 0.62)], pen.lit((240, 160, 40)))
    pen.polygon([(0.5, 0.55), (0.62, 0.0), (0.74, 0.1), (0.72, 0.55)], paint.shade, line)
    pen.oval(0.14, 0.42, 0.78, 0.86, body, line)
    pen.disc(0.78, 0.52, 0.17, body, line)
    pen.oval(0.4, 0.46, 0.76, 0.82, body)
    pen.oval(0.3, 0.62, 0.64, 0.83, paint.shine)
    pen.polygon([(0.32, 0.6), (0.24, 0.04), (0.4, 0.08), (0.6, 0.56)], body, line)
    pen.stroke([(0.4, 0.5), (0.31, 0.14)], paint.shade, 0.02)
    pen.disc(0.82, 0.48, 0.04, pen.lit((250, 250, 250)))
    pen.disc(0.825, 0.48, 0.026, pen.lit((20, 20, 24)))


def _kite(pen: Pen, paint: Paint, rng: random.Random) -> None:
    string = pen.lit((240, 236, 226))
    pen.stroke([(0.5, 0.7), (0.62, 0.8), (0.42, 0.9), (0.55, 1.0)], string, 0.016)
    pen.polygon([(0.5, 0.0), (1.0, 0.3), (0.5, 0.74), (0.0, 0.3)], paint.body, paint.line)
    pen.polygon([(0.5, 0.02), (0.96, 0.3), (0.5, 0.3)], paint.shine)
    pen.polygon([(0.5, 0.3), (0.04, 0.3), (0.5, 0.72)], paint.shade)
    pen.stroke([(0.5, 0.0), (0.5, 0.74)], paint.line, 0.014)
    pen.stroke([(0.0, 0.3), (1.0, 0.3)], paint.line, 0.014)
    for u, v in ((0.59, 0.8), (0.45, 0.9)):
        pen.polygon([(u, v), (u - 0.13, v - 0.035), (u - 0.13, v + 0.035)], paint.body, paint.line)
        pen.polygon([(u, v), (u + 0.13, v - 0.035), (u + 0.13, v + 0.035)], paint.body, paint.line)


def _balloon(pen: Pen, paint: Paint, rng: random.Random) -> None:
    rope = pen.lit((110, 88, 66))
    for u in (0.4, 0.6):
        pen.stroke([(0.5 + (u - 0.5) * 2.2, 0.66), (u, 0.88)], rope, 0.012)
    pen.polygon([(0.1, 0.52), (0.9, 0.52), (0.62, 0.77), (0.38, 0.77)], paint.body, paint.line)
    pen.oval(0.0, 0.0, 1.0, 0.74, paint.body, paint.line)
    pen.polygon([(0.12, 0.54), (0.88, 0.54), (0.62, 0.75), (0.38, 0.75)], paint.body)
    pen.oval(0.2, 0.01, 0.8, 0.735, paint.shade)
    pen.oval(0.36, 0.01, 0.64, 0.735, paint.shine)
    pen.polygon([(0.37, 0.5), (0.63, 0.5), (0.57, 0.765), (0.43, 0.765)], paint.shine)
    pen.block(0.38, 0.86, 0.62, 1.0, pen.lit((150, 104, 62)), pen.lit((92, 62, 40)))


def _plane(pen: Pen, paint: Paint, rng: random.Random) -> None:
    body, line = paint.body, paint.line
    pen.polygon([(0.0, 0.06), (0.14, 0.06), (0.28, 0.44), (0.08, 0.48)], body, line)
    pen.polygon([(0.4, 0.44), (0.34, 0.1), (0.46, 0.1), (0.62, 0.44)], paint.shade, line)
    pen.block(0.04, 0.38, 1.0, 0.7, body, line, radius=0.16)
    pen.block(0.1, 0.58, 0.93, 0.66, paint.shade)
    glass = _glass(pen)
    for i in range(5):
        pen.disc(0.3 + i * 0.105, 0.49, 0.042, glass)
    pen.polygon([(0.86, 0.42), (0.93, 0.42), (0.98, 0.52), (0.86, 0.52)], glass)
    pen.polygon([(0.42, 0.6), (0.66, 0.6), (0.4, 0.98), (0.26, 0.98)], paint.shine, line)
    pen.polygon([(0.06, 0.5), (0.2, 0.5), (0.1, 0.66), (0.0, 0.66)], paint.shine, line)


_DRAWINGS: dict[str, Callable[[Pen, Paint, random.Random], None]] = {
    "boat": _boat,
    "house": _house,
    "tree": _tree,
    "car": _car,
    "bus": _bus,
    "dog": _dog,
    "cat": _cat,
    "person": _person,
    "flower": _flower,
    "umbrella": _umbrella,
    "tent": _tent,
    "lighthouse": _lighthouse,
    "bird": _bird,
    "kite": _kite,
    "balloon": _balloon,
    "plane": _plane,
}
