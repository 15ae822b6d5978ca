"""CLIP trained by two processes: the same as by one with batches of twice the size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from model.refusal import Refusal
from tests.processes import together
from tests.unit.training.test_clip import SMALL
from training.config import load_config
from training.contrastive.batches import ResumableLoader, SharedBatches
from training.contrastive.captioned_pixels import CaptionedPixels
from training.contrastive.loss import contrastive_loss, harder
from training.contrastive.train import train_clip

TWO = ("+clip.trainer.devices=2", "+clip.trainer.strategy=ddp")


def of_all(parts: list[SharedBatches], epoch: int) -> list[list[list[int]]]:
    """The batches of an epoch by their number, each as the parts of all ranks."""
    for part in parts:
        part.set_epoch(epoch)
    return [list(each) for each in zip(*parts, strict=True)]


def test_the_ranks_together_have_the_batches_of_one_process():
    whole = SharedBatches(31, 10, shuffled=True, seed=3)
    parts = [SharedBatches(31, 5, shuffled=True, seed=3, rank=rank, ranks=2) for rank in (0, 1)]
    orders = []
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        batches = list(whole)
        assert [one + other for one, other in of_all(parts, epoch)] == batches
        rows = sum(batches, [])
        assert len(set(rows)) == len(rows) == 30  # nothing twice; the last is no whole batch
        orders.append(rows)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("pictures", [2, 9, 10, 11])
def test_in_order_every_picture_comes_once(pictures: int):
    parts = [SharedBatches(pictures, 3, shuffled=False, rank=rank, ranks=2) for rank in (0, 1)]
    assert sum((sum(part, []) for part in parts), []) == list(range(pictures))
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]


def test_a_split_of_fewer_pictures_than_processes_is_refused():
    with pytest.raises(Refusal, match=r"has 1 pictures for 2 processes; .*clip.trainer.devices"):
        SharedBatches(1, 3, shuffled=False, rank=1, ranks=2)


def test_a_loader_goes_on_after_the_batches_that_were_given():
    rows = np.arange(20).reshape(20, 1, 1, 1)
    pictures = CaptionedPixels(rows, torch.arange(20).view(20, 1, 1), None)

    def loader() -> ResumableLoader:
        made = pictures.loader(4, shuffled=True, seed=1)
        made.batches.set_epoch(2)
        return made

    whole = [texts.flatten().tolist() for _, texts, _ in loader()]
    assert all(
        pixels.flatten().tolist() == texts.flatten().tolist() for pixels, texts, _ in loader()
    )
    first = loader()
    given = iter(first)
    cut = [next(given)[1].flatten().tolist() for _ in range(3)]
    second = loader()
    second.load_state_dict(first.state_dict())
    rest = [texts.flatten().tolist() for _, texts, _ in second]
    assert cut + rest == whole
    second.load_state_dict(second.state_dict())  # a whole epoch was given
    assert len(list(second)) == len(second) == 5


def test_hard_negatives_count_more_and_the_others_less():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(3, 5, generator=generator, dtype=torch.double) * 3
    own = torch.tensor([2, 0, 4])
    assert torch.equal(harder(similarity, own, 0.0), similarity)
    found = (harder(similarity, own, 0.5) - similarity).exp()  # the weights
    for row, column in enumerate(own.tolist()):
        others = [k for k in range(5) if k != column]
        wanted = (0.5 * similarity[row, others]).softmax(0) * 4
        torch.testing.assert_close(found[row, others], wanted)
        assert found[row, column] == 1
    one = torch.ones(1, 2)
    assert contrastive_loss(one, one, torch.tensor(3.0), 0.5) == 0  # without negatives


def run(folder: Path, data: Path, *settings: str) -> dict[str, Any]:
    """Train; the losses and pictures of each step, as this process saw them."""
    seen: dict[str, Any] = {"batches": [], "losses": []}
    read, step = CaptionedPixels.__getitem__, contrastive_loss

    def counted(pictures: CaptionedPixels, rows: list[int]) -> Any:
        seen["batches"].append([len(pictures), sorted(rows)])
        return read(pictures, rows)

    def noted(*arguments: Any) -> Tensor:
        seen["losses"].append(loss := step(*arguments))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptionedPixels, "__getitem__", counted)
        patch.setattr("training.contrastive.module.contrastive_loss", noted)
        given = [f"clip.data={data}", f"clip.out={folder}", *SMALL, *settings]
        train_clip(load_config(given).clip)
    return {**seen, "losses": [loss.item() for loss in seen["losses"]]}


def test_two_processes_learn_what_one_with_the_whole_batch_learns(
    tiny_scenes: Path, tiny_clip: Path, tmp_path: Path
):
    settings = (f"clip.base={tiny_clip}", "clip.anchor_weight=0.5", "clip.hard_negatives=0.5")
    alone = run(tmp_path / "one", tiny_scenes, "clip.batch_size=10", *settings)

    def work(rank: int) -> None:
        seen = run(tmp_path / "two", tiny_scenes, "clip.batch_size=5", *TWO, *settings)
        (tmp_path / f"seen-{rank}.json").write_text(json.dumps(seen))

    together(2, work, tmp_path / "logs")
    both = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    losses = np.mean([each["losses"] for each in both], axis=0)
    np.testing.assert_allclose(losses, alone["losses"], rtol=1e-4)
    for split in (31, 10, 12):  # pictures of train, val and test
        rows = [[r for n, batch in each["batches"] if n == split for r in batch] for each in both]
        assert not set(rows[0]) & set(rows[1])
        assert len({*rows[0], *rows[1]}) == (30 if split == 31 else split)
        # Validation begins with a trial of its first batches.
        assert split == 10 or len(set(rows[0])) == len(rows[0])
    one, two = (tmp_path / name / "model" for name in ("one", "two"))
    weights = load_file(two / "model.safetensors")
    for name, value in load_file(one / "model.safetensors").items():
        if not name.endswith("k_proj.bias"):  # its gradient is 0 but for rounding
            torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-5, msg=name)
    figures = [json.loads((folder / "retrieval.json").read_text()) for folder in (one, two)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert "error" not in (tmp_path / "logs" / "rank-1.log").read_text().lower()


def test_the_loss_without_others_is_clip_s_own():
    images, texts = (F.normalize(torch.randn(4, 8), dim=-1) for _ in range(2))
    similarity = 7 * images @ texts.T
    own = torch.arange(4)
    expected = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.tensor(7.0)), expected)
