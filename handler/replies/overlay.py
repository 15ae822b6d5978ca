"""Draws an explanation: the picture once for each word, with what the word rests on in colour.

The tiles stand in the order of the words, each under its word and the highest value of its cells in
nats. What the captioner does not see, because only the square in the centre goes to its encoder, is
dark. Only Pillow is needed; its built-in font has the letters of European languages.
"""

from __future__ import annotations

import dataclasses
import io

import torch
from PIL import Image, ImageDraw, ImageFont

from model.explanation import CaptionExplanation
from model.image.preprocessing import Preprocessing, crop_of

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Longest side of the picture in a tile, in pixels. The tiles of 64 words, the most that a caption
#: may have, are then within TorchServe's limit of a reply, even if PNG cannot compress them.
TILE = 224
COLUMNS = 4
#: Value in nats that gets the strongest colour where no cell of the word has a higher one, so that
#: a word that rests on nothing in the picture stays nearly without colour.
FULL_COLOUR = 1.0

_TITLE, _GAP, _LINE = 20, 8, 18  # pixels
_PAPER, _INK = (255, 255, 255), (20, 20, 24)
_WARM, _HOT = (255, 196, 0), (214, 0, 28)
_COLOURED = 0.72  # part of the strongest colour in its mixture with the picture
_GREYED = 0.7  # part of grey in the picture below the colour


@dataclasses.dataclass(frozen=True)
class PictureView:
    """What is kept of a picture until its caption is explained.

    Attributes:
        thumbnail: The whole picture, RGB, `TILE` pixels on its longer side.
        crop: The part of it that the captioner sees, as `crop_of` gives it.
    """

    thumbnail: Image.Image
    crop: tuple[float, float, float, float]

    @classmethod
    def of(cls, image: Image.Image, preprocessing: Preprocessing) -> PictureView:
        """The view of a decoded picture."""
        scale = TILE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        thumbnail = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
        return cls(thumbnail, crop_of(image.size, preprocessing))


def contact_sheet(view: PictureView, caption: str, explanation: CaptionExplanation) -> bytes:
    """The explanation of a caption as a PNG file.

    Args:
        view: The picture.
        caption: The text above the tiles.
        explanation: The words and their cells.
    """
    font = ImageFont.load_default(13)
    columns = min(COLUMNS, 1 + len(explanation.words))
    width = max(columns, 3) * (TILE + _GAP) + _GAP
    lines = _wrapped(caption, font, width - 2 * _GAP)
    top = _GAP + len(lines) * _LINE
    rows = -(-(1 + len(explanation.words)) // columns)
    row_height = _TITLE + view.thumbnail.height + _GAP
    sheet = Image.new("RGB", (width, top + rows * row_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_GAP, _GAP + number * _LINE), line, _INK, font)
    titles = [("picture", view.thumbnail)]
    for word, cells in zip(explanation.words, explanation.cells, strict=True):
        title = f"{word.text}  {float(cells.max()):+.1f}"
        titles.append((title, _tile(view, cells)))
    for number, (title, tile) in enumerate(titles):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (TILE + _GAP), top + row * row_height
        draw.text((x, y), _shortened(title, font, TILE), _INK, font)
        sheet.paste(tile, (x, y + _TITLE))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _tile(view: PictureView, cells: torch.Tensor) -> Image.Image:
    """The picture with the cells of one word, float32 [C, C], in colour."""
    thumbnail, crop = view.thumbnail, view.crop
    left, top = round(crop[0] * thumbnail.width), round(crop[1] * thumbnail.height)
    width = max(1, round(crop[2] * thumbnail.width))
    height = max(1, round(crop[3] * thumbnail.height))
    grey = Image.blend(thumbnail, thumbnail.convert("L").convert("RGB"), _GREYED)
    tile = Image.blend(grey, Image.new("RGB", grey.size), 0.65)  # what the captioner does not see
    heat = (cells / max(float(cells.max()), FULL_COLOUR)).clamp(0, 1).mul(255).to(torch.uint8)
    # One byte a cell; Pillow's resizing makes the cells run into each other, as their windows do.
    grid = Image.frombytes("L", (cells.shape[1], cells.shape[0]), bytes(heat.flatten().tolist()))
    strength = grid.resize((width, height), Image.Resampling.BICUBIC)
    colour = Image.composite(
        Image.new("RGB", strength.size, _HOT), Image.new("RGB", strength.size, _WARM), strength
    )
    seen = grey.crop((left, top, left + width, top + height))
    alpha = strength.point([round(_COLOURED * value) for value in range(256)])
    tile.paste(Image.composite(colour, seen, alpha), (left, top))
    return tile


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """The lines of a text that is broken at its spaces."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shortened(line, font, width) for line in lines]


def _shortened(text: str, font: Font, width: int) -> str:
    """A text that is cut so that it fits a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
