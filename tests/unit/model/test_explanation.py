"""The value of each cell equals that of the obvious way: each window alone, one image at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.artifact import Artifact, GeneratedCaption
from model.explanation import (
    HIGHEST_GRID,
    LOWEST_GRID,
    CaptionExplanation,
    PartialImages,
    explain,
    image_count,
    window_cells,
)
from model.image.preprocessing import Preprocessing, crop_of, to_square
from tests.pictures import picture


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


@pytest.fixture(scope="module")
def pixels(artifact: Artifact) -> torch.Tensor:
    side = artifact.preprocessing.size
    torch.manual_seed(0)
    return torch.randn(3, side, side)


@pytest.fixture(scope="module")
def caption(artifact: Artifact, pixels: torch.Tensor) -> GeneratedCaption:
    [[caption]] = artifact.caption(artifact.encode(pixels[None]), artifact.defaults)
    return caption


def explained(
    artifact: Artifact, pixels: torch.Tensor, caption: GeneratedCaption, grid: int, size: int
) -> CaptionExplanation:
    count = image_count(grid)
    parts = [range(begin, min(count, begin + size)) for begin in range(0, count, size)]
    return explain(artifact, pixels, caption, grid, parts, lambda work, each: [*map(work, each)])


def obvious(
    artifact: Artifact, pixels: torch.Tensor, caption: GeneratedCaption, grid: int
) -> torch.Tensor:
    """[T, C, C]: for each token and cell, the mean over every window that covers the cell."""
    ids = artifact.text_ids(caption.ids)
    side, window = pixels.shape[-1], window_cells(grid)
    blank = pixels.mean((1, 2), keepdim=True).expand_as(pixels)

    def score(image: torch.Tensor) -> torch.Tensor:
        return artifact.score(artifact.encode(image[None]), torch.tensor([ids]))[0]

    whole, nothing = score(pixels), score(blank)
    found = torch.zeros(len(ids), grid, grid)
    covered = torch.zeros(grid, grid)
    for top in range(1 - window, grid):
        for left in range(1 - window, grid):
            shown, hidden = blank.clone(), pixels.clone()
            cells = [
                (row, column)
                for row in range(top, top + window)
                for column in range(left, left + window)
                if 0 <= row < grid and 0 <= column < grid
            ]
            for row, column in cells:
                at = (
                    slice(None),
                    slice(side * row // grid, side * (row + 1) // grid),
                    slice(side * column // grid, side * (column + 1) // grid),
                )
                shown[at], hidden[at] = pixels[at], blank[at]
            value = ((score(shown) - nothing) + (whole - score(hidden))) / 2
            for row, column in cells:
                found[:, row, column] += value
                covered[row, column] += 1
    assert (covered == window**2).all()
    return found / covered


@pytest.mark.parametrize("grid", [2, 3, 5])
def test_cells_are_those_of_each_image_scored_alone(
    artifact: Artifact, pixels: torch.Tensor, caption: GeneratedCaption, grid: int
):
    found = explained(artifact, pixels, caption, grid, 7)
    slow = obvious(artifact, pixels, caption, grid)
    assert found.words
    assert found.passes == image_count(grid)
    for word, cells in zip(found.words, found.cells, strict=True):
        torch.testing.assert_close(cells, slow[list(word.tokens)].sum(0), atol=1e-4, rtol=1e-4)


def test_the_size_of_the_passes_makes_no_difference(
    artifact: Artifact, pixels: torch.Tensor, caption: GeneratedCaption
):
    alone, together = (explained(artifact, pixels, caption, 4, size) for size in (1, 1000))
    torch.testing.assert_close(alone.cells, together.cells, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.blank, together.blank, atol=1e-4, rtol=1e-4)


def test_the_words_are_the_caption_and_their_log_probabilities_its_own(
    artifact: Artifact, pixels: torch.Tensor, caption: GeneratedCaption
):
    found = explained(artifact, pixels, caption, 2, 8)
    assert [caption.text[word.begin : word.end] for word in found.words] == [
        word.text for word in found.words
    ]
    ids = torch.tensor([caption.ids])
    own = artifact.score(artifact.encode(pixels[None]), ids)[0]
    assert own.sum().item() == pytest.approx(caption.log_prob, abs=1e-3)
    for word, log_prob in zip(found.words, found.log_probs, strict=True):
        torch.testing.assert_close(log_prob, own[list(word.tokens)].sum(), atol=1e-4, rtol=1e-4)


def test_an_image_of_one_colour_has_nothing_to_rest_on(
    artifact: Artifact, caption: GeneratedCaption
):
    side = artifact.preprocessing.size
    found = explained(artifact, torch.full((3, side, side), 0.3), caption, 4, 8)
    torch.testing.assert_close(found.cells, torch.zeros_like(found.cells), atol=1e-4, rtol=0)


def test_a_caption_without_words_takes_no_pass(artifact: Artifact, pixels: torch.Tensor):
    end = artifact.info["end_token_id"]
    found = explained(artifact, pixels, GeneratedCaption("", -1.0, 1, "end", (end,)), 3, 8)
    assert (found.words, found.passes, found.cells.shape) == ((), 0, (0, 3, 3))


@pytest.mark.parametrize("grid", range(LOWEST_GRID, HIGHEST_GRID + 1))
def test_every_cell_is_covered_as_often(grid: int):
    images = PartialImages(torch.rand(3, 32, 32), grid)
    windows = (image_count(grid) - 2) // 2
    values = images.cell_values(torch.ones(windows, 1))
    torch.testing.assert_close(values, torch.ones(1, grid, grid))
    # What is shown and what is hidden of a window are the two parts of the image.
    whole, blank = images.images(range(2))
    for index in (0, windows // 2, windows - 1):
        shown, hidden = images.images(range(2 + index, 3 + index + windows))[[0, -1]]
        torch.testing.assert_close(shown + hidden, whole + blank)


@pytest.mark.parametrize("size", [(640, 480), (333, 1000), (128, 128), (20, 4000), (4000, 20)])
@pytest.mark.parametrize("crop", [True, False])
def test_the_crop_is_the_part_that_preprocessing_keeps(size: tuple[int, int], crop: bool):
    preprocessing = Preprocessing(64, (0.5,) * 3, (0.5,) * 3, crop=crop)
    x, y, width, height = crop_of(size, preprocessing)
    assert 0 <= x <= x + width <= 1 + 1e-9
    assert 0 <= y <= y + height <= 1 + 1e-9
    image = picture().resize(size)
    box = (x * size[0], y * size[1], (x + width) * size[0], (y + height) * size[1])
    again = image.resize((64, 64), 3, box=box)
    kept = to_square(image, preprocessing)
    one, other = (
        torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8).float()
        for each in (kept, again)
    )
    assert (one - other).abs().mean() < 3
