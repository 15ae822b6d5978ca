"""Which part of an image each word of its caption rests on.

A window of the image is hidden, and the captioner scores the caption that it wrote of the whole
image: what a word's log-probability falls by is what the window was worth to the word. This is
occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", arXiv
1311.2901, section 4.2). It finds nothing where the rest of the image tells the same, as each of
three boats does. So the window is also shown alone, on a blank image: what the log-probability
gains over the blank image. Which parts a word needs and which suffice for it are two questions; the
value of a window is the mean of both answers, and `python -m benchmarks.explanations` compares it
with each. All this needs nothing of the captioner but `encode` and `score`, so it explains the
artifact that is served.

The image is divided into a grid of cells. A window of several cells takes every position, also over
the edges, and a cell gets the mean of the windows that cover it.

Axes: C cells on a side, S image side, T caption tokens, N windows, W words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.artifact import Artifact, GeneratedCaption
from model.caption_words import CaptionWord, caption_words

#: Cells on a side of the grid: fewest, most, and the usual number.
LOWEST_GRID, HIGHEST_GRID, DEFAULT_GRID = 2, 12, 8
#: Side of a window, as a part of the image's side.
WINDOW = 3 / 8
#: The numbers of the whole image and of the blank one; N that show a window and N that hide it
#: follow.
WHOLE, BLANK, FIRST_WINDOW = 0, 1, 2

#: Calls work for each part of the images, perhaps in parallel; gives the results in their order.
RunPasses = Callable[[Callable[[range], Tensor], Sequence[range]], list[Tensor]]


@dataclasses.dataclass(frozen=True)
class CaptionExplanation:
    """What each part of an image is worth to each word of its caption.

    Attributes:
        words: The words, in their order.
        log_probs: float32 [W], the log-probability of each word in nats, of the whole image.
        blank: float32 [W], the same of the blank image: without any picture.
        shown: float32 [W, C, C]: what the log-probability gains over the blank image where a window
            over the cell is shown, in nats, as the mean of those windows.
        hidden: float32 [W, C, C]: what it falls by where such a window is hidden.
        passes: Images that were encoded and scored for it.
    """

    words: tuple[CaptionWord, ...]
    log_probs: Tensor
    blank: Tensor
    shown: Tensor
    hidden: Tensor
    passes: int

    @property
    def cells(self) -> Tensor:
        """What each cell is worth to each word, float32 [W, C, C], in nats.

        Below 0 the word is likelier without the cell.
        """
        return (self.shown + self.hidden) / 2


def window_cells(grid: int) -> int:
    """Cells on a side of a window, at least 1."""
    return max(1, round(WINDOW * grid))


def image_count(grid: int) -> int:
    """Images to encode and score for a grid of `grid` x `grid` cells: 2 + 2 N."""
    return FIRST_WINDOW + 2 * (grid + window_cells(grid) - 1) ** 2


def explain(
    artifact: Artifact,
    pixels: Tensor,
    caption: GeneratedCaption,
    grid: int,
    parts: Sequence[range],
    run_passes: RunPasses,
) -> CaptionExplanation:
    """Explain a caption of an image.

    Args:
        artifact: The captioner that wrote it.
        pixels: float32 [3, S, S], normalised: the image.
        caption: Its caption, with token ids.
        grid: Cells on a side, from `LOWEST_GRID` to `HIGHEST_GRID`.
        parts: The images of each pass; they divide `range(image_count(grid))`.
        run_passes: Runs the passes.
    """
    ids = artifact.text_ids(caption.ids)
    # A limit of characters may have cut the text where the tokens go on.
    words = caption_words(ids, artifact.text)
    words = tuple(word for word in words if word.end <= len(caption.text))
    if not words:
        nothing, no_cells = pixels.new_zeros(0), pixels.new_zeros(0, grid, grid)
        return CaptionExplanation((), nothing, nothing, no_cells, no_cells, 0)
    images = PartialImages(pixels, grid)

    def score(part: range) -> Tensor:
        features = artifact.encode(images.images(part))
        tokens = torch.tensor([ids], device=features.device).expand(len(part), -1)
        return artifact.score(features, tokens)

    of_tokens = torch.cat(run_passes(score, parts))  # [2 + 2 N, T]
    of_words = torch.stack([of_tokens[:, list(word.tokens)].sum(1) for word in words], 1)
    whole, blank = of_words[WHOLE], of_words[BLANK]
    showing, hiding = of_words[FIRST_WINDOW:].chunk(2)  # [N, W] each
    shown, hidden = images.cell_values(showing - blank), images.cell_values(whole - hiding)
    return CaptionExplanation(words, whole, blank, shown, hidden, len(of_tokens))


class PartialImages:
    """An image, a blank one, and the image with each window shown alone or hidden.

    They are made when they are needed.

    The blank image has the mean colour of the image. Black or white would be a colour that a
    caption may name.

    Args:
        pixels: float32 [3, S, S], normalised.
        grid: Cells on a side.
    """

    def __init__(self, pixels: Tensor, grid: int) -> None:
        self._pixels = pixels
        self._blank = pixels.mean((1, 2), keepdim=True)
        self._grid = grid
        self._window = window_cells(grid)
        self._count = (grid + self._window - 1) ** 2  # N
        side = pixels.shape[-1]
        self._edges = [side * cell // grid for cell in range(grid + 1)]  # pixel where each begins

    def images(self, numbers: range) -> Tensor:
        """The images of these numbers, from 0 to 1 + 2 N, float32 [len(numbers), 3, S, S]."""
        return torch.stack([self._image(number) for number in numbers])

    def _image(self, number: int) -> Tensor:
        if number == WHOLE:
            return self._pixels
        blank = self._blank.expand_as(self._pixels)
        if number == BLANK:
            return blank
        is_hidden, index = divmod(number - FIRST_WINDOW, self._count)
        inside, around = (blank, self._pixels) if is_hidden else (self._pixels, blank)
        image = around.clone()
        rows, columns = (
            slice(self._edges[cells.start], self._edges[cells.stop]) for cells in self.window(index)
        )
        image[:, rows, columns] = inside[:, rows, columns]
        return image

    def window(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of the cells in window `index`, from 0 to N - 1."""
        row, column = divmod(index, self._grid + self._window - 1)
        return self._cells(row), self._cells(column)

    def cell_values(self, values: Tensor) -> Tensor:
        """The mean of the windows that cover each cell.

        Args:
            values: float32 [N, W], of each window.

        Returns:
            float32 [W, C, C].
        """
        total = values.new_zeros(self._grid, self._grid, values.shape[1])
        for index, value in enumerate(values):
            total[self.window(index)] += value
        return (total / self._window**2).permute(2, 0, 1)  # as many windows cover each cell

    def _cells(self, position: int) -> slice:
        """The cells of a window at this position; at the first one it covers one cell only."""
        begin = position - (self._window - 1)
        return slice(max(0, begin), min(self._grid, begin + self._window))
