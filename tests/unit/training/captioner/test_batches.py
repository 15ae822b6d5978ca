"""Which captions make a batch: each once an epoch, in an order of seed and epoch alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from model.refusal import Refusal
from training.captioner.batches import OrderedBatches, Share, ShuffledBatches


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        batches = ShuffledBatches(np.arange(50), 8, seed)
        batches.set_epoch(epoch)
        torch.rand(3)  # the global generator has no say
        found = list(batches)
        assert len(found) == len(batches) == 7
        return [number for batch in found for number in batch]

    assert order(1, 0) == order(1, 0)
    assert sorted(order(1, 0)) == list(range(50))
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_captions_of_an_image_stand_side_by_side_in_small_groups():
    owners = np.repeat([3, 5, 8, 9], [5, 1, 4, 2])
    numbers = [n for batch in ShuffledBatches(owners, 4, seed=1, together=2) for n in batch]
    assert sorted(numbers) == list(range(12))
    of = owners[numbers].tolist()
    runs = [(owner, len(list(own))) for owner, own in itertools.groupby(of)]
    assert [owner for owner, _ in runs] != sorted(of)
    alone = [owner for owner, count in runs if count == 1]
    assert sorted(alone) == [3, 5]  # the odd one of five, and the only one


@pytest.mark.parametrize(("together", "window"), [(1, 4), (5, 16), (2, 1000)])
def test_batches_of_like_length_need_less_padding_and_hold_each_caption_once(
    together: int, window: int
):
    rng = np.random.default_rng(3)
    owners = np.repeat(np.arange(200), 5)[:998]
    # Captions of an image are of like length, more or less.
    lengths = rng.integers(5, 40, 200)[owners] + rng.integers(0, 6, len(owners))

    def epoch(window: int, number: int = 0) -> list[list[int]]:
        batches = ShuffledBatches(owners, 32, 1, together, lengths, window)
        batches.set_epoch(number)
        return list(batches)

    def padding(batches: list[list[int]]) -> int:
        return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)

    mixed, alike = epoch(0), epoch(window)
    assert sorted(itertools.chain(*alike)) == list(range(998))
    assert [len(batch) for batch in alike] == [32] * 31 + [6] == [len(batch) for batch in mixed]
    assert padding(alike) < 0.5 * padding(mixed)
    assert epoch(window) == alike
    assert epoch(window, 1) != alike
    # Long captions do not come last, as they would in a sorted window.
    longest = [lengths[batch].max() for batch in alike[:4]]
    assert longest != sorted(longest)
    # Only the end of a batch parts captions of an image that belong together.
    groups = sum(-(-own // together) for own in np.bincount(owners))
    runs = [owner for owner, _ in itertools.groupby(owners[[n for b in alike for n in b]])]
    assert len(runs) <= groups + len(alike)


@pytest.mark.parametrize("count", [12, 13, 14, 1])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_share_every_batch_and_miss_no_caption(count: int, devices: int):
    if count < devices:
        with pytest.raises(Refusal, match=f"number of captions is 1, which {devices} devices"):
            OrderedBatches(count, 4, Share(0, devices))
        return
    owners = np.arange(count)
    shares = [Share(rank, devices) for rank in range(devices)]
    for kind in (
        [OrderedBatches(count, 4, share) for share in shares],
        [ShuffledBatches(owners, 4, 7, share=share) for share in shares],
    ):
        own = [list(batches) for batches in kind]
        assert {len(each) for each in own} == {len(kind[0])}  # none waits for another for ever
        assert all(batch for each in own for batch in each)
        assert sorted(itertools.chain(*itertools.chain(*own))) == list(range(count))
    alone = list(ShuffledBatches(owners, 4, 7))
    together = [sum(parts, []) for parts in zip(*own, strict=True)]
    whole = count // 4 - 1  # the last one may have taken what was left over
    assert together[:whole] == alone[:whole]
    assert list(itertools.chain(*together)) == list(itertools.chain(*alone))


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(Refusal, match=r"train.batch_size is 4, which 8 devices cannot .* most 4"):
        OrderedBatches(100, 4, Share(0, 8))
