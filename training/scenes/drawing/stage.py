"""The canvas of a picture, in units of its centre square, and shapes for the landscape."""

import math
import random

from PIL import Image, ImageDraw

from training.scenes.drawing.paint import Colour, Light, times


class Stage:
    """The canvas of a picture.

    Its methods take lengths in units of the centre square: (0, 0) is the square's upper left corner
    and (1, 1) its lower right one. A wide canvas reaches from x = `left` < 0 to `right` > 1, a tall
    one from y = `top` < 0 to `bottom` > 1.

    Args:
        width: of the canvas in pixels.
        height: of the canvas in pixels.
        light: of the scene.
        rng: for the details of the landscape.
    """

    def __init__(self, width: int, height: int, light: Light, rng: random.Random) -> None:
        self.image = Image.new("RGB", (width, height))
        self.draw = ImageDraw.Draw(self.image)
        self.glass = ImageDraw.Draw(self.image, "RGBA")  # draws with transparent colours
        self.unit = min(width, height)
        self.x0, self.y0 = (width - self.unit) / 2, (height - self.unit) / 2
        self.left, self.top = -self.x0 / self.unit, -self.y0 / self.unit
        self.right, self.bottom = 1 - self.left, 1 - self.top
        self.light = light
        self.rng = rng

    def x(self, x: float) -> float:
        """Pixels from the left edge."""
        return self.x0 + x * self.unit

    def y(self, y: float) -> float:
        """Pixels from the upper edge."""
        return self.y0 + y * self.unit

    def land(self, colour: Colour) -> Colour:
        """A colour of the landscape in the scene's light; `rng` changes it a little."""
        drift = self.rng.uniform(0.96, 1.04)
        light = self.light.land
        return times(colour, (light[0] * drift, light[1] * drift, light[2] * drift))

    def gradient(self, top: float, bottom: float, stops: tuple[Colour, ...]) -> None:
        """A band over the whole width, from y = `top` to `bottom`, blending the colours `stops`."""
        first, last = max(int(self.y(top)), 0), min(int(self.y(bottom) + 1), self.image.height)
        if last <= first:
            return
        strip = Image.frombytes("RGB", (1, len(stops)), bytes(v for c in stops for v in c))
        strip = strip.resize((1, last - first), Image.Resampling.BILINEAR)
        self.image.paste(strip.resize((self.image.width, last - first), 0), (0, first))

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        """A filled shape."""
        self.draw.polygon([(self.x(x), self.y(y)) for x, y in points], fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        """An ellipse around (x, y); a fourth number in `fill` is its opacity, to 255."""
        pen = self.glass if len(fill) == 4 else self.draw
        at = (self.x(x - rx), self.y(y - ry), self.x(x + rx), self.y(y + ry))
        pen.ellipse(at, fill=fill)

    def block(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """A rectangle between two corners."""
        self.draw.rectangle((self.x(x0), self.y(y0), self.x(x1), self.y(y1)), fill=fill)

    def ridge(
        self, y: float, height: float, fill: Colour, waves: float = 2.0, sharp: bool = False
    ) -> None:
        """Hills, or mountains if `sharp`, from at most `height` above y down to the lower edge."""
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
