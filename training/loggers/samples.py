"""Pictures of the validation split that the loggers show with their captions."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from model.image.decode import load_image
from training.data.dataset import CaptionDataset

#: Longest side of a picture as it is recorded, in pixels.
SIDE = 224
#: Below a picture on a sheet: height of its captions, and of their letters, in pixels.
ROOM, LETTERS = 84, 12
#: Letters of a line, and lines, of a caption below a picture.
LINE, LINES = 34, 6
#: Pictures of a row of a sheet.
ACROSS = 4


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture with captions.

    Attributes:
        image_id: Of the picture in the data set.
        picture: At most `SIDE` pixels wide and high.
        references: The captions of the data set.
        caption: The captioner's.
    """

    image_id: int
    picture: Image.Image
    references: Sequence[str]
    caption: str = ""


def read_samples(
    dataset: CaptionDataset, ids: Sequence[int], count: int, max_pixels: int
) -> list[Sample]:
    """The pictures that are shown at every validation, spread evenly over the split.

    Args:
        dataset: The data set.
        ids: Ids of the validation images.
        count: How many; all if there are fewer.
        max_pixels: Largest picture that is read.

    Raises:
        ImageRefusal: A picture is damaged or too large.
        OSError: A picture cannot be read.
    """
    count = min(count, len(ids))
    samples = []
    for image_id in (ids[i * len(ids) // count] for i in range(count)):
        picture = load_image(dataset.files[image_id].read_bytes(), max_pixels, SIDE)
        picture.thumbnail((SIDE, SIDE))
        samples.append(Sample(image_id, picture, list(dataset.captions[image_id])))
    return samples


def captioned(samples: Sequence[Sample], captions: Mapping[int, str]) -> list[Sample]:
    """The same pictures with these captions of the captioner, by image id."""
    return [dataclasses.replace(each, caption=captions[each.image_id]) for each in samples]


def sheet(samples: Sequence[Sample]) -> Image.Image:
    """All pictures on one, each with the captioner's caption below it."""
    font = ImageFont.load_default(LETTERS)
    across = min(ACROSS, len(samples))
    down = -(-len(samples) // across)
    drawn = Image.new("RGB", (across * SIDE, down * (SIDE + ROOM)), "white")
    pen = ImageDraw.Draw(drawn)
    for number, each in enumerate(samples):
        left, top = number % across * SIDE, number // across * (SIDE + ROOM)
        drawn.paste(each.picture, (left, top))
        lines = textwrap.wrap(each.caption, LINE)[:LINES]
        pen.multiline_text((left + 4, top + SIDE + 2), "\n".join(lines), "black", font, spacing=1)
    return drawn
