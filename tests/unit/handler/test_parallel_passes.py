"""Passes in parallel, each with its share of the threads."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from handler.parallel_passes import ParallelPasses


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("items", "share"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_threads_are_shared_out_and_results_keep_their_order(items: int, share: int):
    found = ParallelPasses(4).map(lambda item: (item, torch.get_num_threads()), list(range(items)))
    assert found == [(item, share) for item in range(items)]


def test_as_many_run_at_once_as_there_are_threads():
    together = threading.Barrier(2, timeout=10)
    ParallelPasses(2).map(lambda _: together.wait(), [0, 1])


def test_nothing_is_nothing():
    assert ParallelPasses(2).map(str, []) == []


def test_an_error_comes_out():
    def work(item: int) -> None:
        raise KeyError(item)

    with pytest.raises(KeyError):
        ParallelPasses(2).map(work, [1, 2])


@given(st.integers(1, 8), st.integers(0, 200), st.integers(1, 16))
def test_passes_are_even_and_keep_all_threads_busy(threads: int, count: int, most: int):
    parts = ParallelPasses(threads).partition(count, most)
    assert [place for part in parts for place in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert not sizes or (min(sizes) > 0 and max(sizes) <= most and max(sizes) - min(sizes) <= 1)
    if count <= most:
        assert len(parts) == (count > 0)
    assert len(parts) >= min(threads, -(-count // most))


@pytest.mark.parametrize(
    ("threads", "count", "sizes"),
    [
        (1, 16, [8, 8]),
        (2, 16, [8, 8]),
        (3, 16, [5, 5, 6]),  # with two passes, one of the threads would be idle
        (4, 16, [8, 8]),
        (4, 24, [6, 6, 6, 6]),  # three passes would leave one idle too
        (8, 16, [8, 8]),
        (4, 8, [8]),
        (2, 40, [6, 7, 7, 6, 7, 7]),
    ],
)
def test_no_thread_is_idle_while_others_have_more_to_do(threads: int, count: int, sizes: list[int]):
    parts = ParallelPasses(threads).partition(count, 8)
    assert [part.stop - part.start for part in parts] == sizes
