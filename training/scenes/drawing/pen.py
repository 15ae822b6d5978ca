"""Draws in the box of one thing, in coordinates that do not depend on the box."""

from PIL import ImageDraw

from training.scenes.drawing.paint import Colour, Light, Points, times


class Pen:
    """Draws in the box of one thing: (0, 0) is its upper left corner, (1, 1) its lower right one.

    Args:
        canvas: what to draw on.
        box: x, y, width and height in pixels.
        flipped: whether to draw the mirror image.
        line_width: of outlines, in pixels.
        light: of the scene.
    """

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
        """A colour in the light of the scene; for parts such as wheels, skin and wood."""
        return times(colour, self.light.thing)

    def _to_pixels(self, points: Points) -> Points:
        return [(self.x + u * self.w, self.y + v * self.h) for u, v in points]

    def polygon(self, points: Points, fill: Colour, line: Colour | None = None) -> None:
        """A filled shape, with an outline in `line`."""
        at = self._to_pixels(points)
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
        """An ellipse between two corners."""
        at = self._corners(u0, v0, u1, v1)
        if line is None:
            self.canvas.ellipse(at, fill=fill)
        else:
            self.canvas.ellipse(at, fill=line)
            by = self.line_width
            if at[2] - at[0] > 2 * by and at[3] - at[1] > 2 * by:
                self.canvas.ellipse([at[0] + by, at[1] + by, at[2] - by, at[3] - by], fill=fill)

    def disc(self, u: float, v: float, r: float, fill: Colour, line: Colour | None = None) -> None:
        """A circle, also in a box that is not square; `r` in units of the box's height."""
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
            corner = radius * self.h
            short, long = sorted((round(at[2]) - round(at[0]), round(at[3]) - round(at[1])))
            if line and 2 * corner >= short - 1 and long == short + 1 and short % 2 == 0:
                # Pillow 12 fails to draw the outline of a box whose corners nearly meet; with this
                # radius they do meet.
                corner = short / 2
            self.canvas.rounded_rectangle(at, corner, fill, line, width)
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
            self._to_pixels(points),
            fill=fill,
            width=max(int(width * self.h + 0.5), self.line_width),
            joint="curve" if len(points) > 2 else None,
        )
