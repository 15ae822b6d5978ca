"""The order of pictures, against a model that is a plain list; and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.captioning.fair_queue import FairQueue
from gateway.errors import GatewayError


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


class Visitor:
    """A picture that goes to TorchServe and stays until it is told to leave."""

    def __init__(self, queue: FairQueue, client: str, served: list[str], alone: bool = False):
        self._leave = asyncio.Event()

        async def visit() -> None:
            await (queue.enter_alone() if alone else queue.enter(client))
            try:
                served.append(client)
                await self._leave.wait()
            finally:
                queue.leave()

        self.task = asyncio.create_task(visit())

    def leave(self) -> None:
        self._leave.set()


def test_clients_take_turns():
    async def test() -> None:
        queue, served = FairQueue(100, at_once=1), list[str]()
        visitors = [Visitor(queue, name, served) for name in "aaaabbc"]
        await settle()
        for each in visitors:  # all may leave as soon as they have come
            each.leave()
        await asyncio.gather(*(each.task for each in visitors))
        # The first had no need to wait. Of the others each client has one turn after another.
        assert served == list("aabcaba")

    run(test)


def test_a_place_is_free_again_after_a_cancellation():
    async def test() -> None:
        queue, served = FairQueue(100, at_once=1), list[str]()
        first, second, third = (Visitor(queue, name, served) for name in "abc")
        await settle()
        second.task.cancel()  # while it waits
        await settle()
        first.task.cancel()  # while it is in TorchServe
        await settle()
        assert served == ["a", "c"]
        third.leave()
        await third.task

    run(test)


def test_one_that_is_cancelled_just_as_it_gets_its_place_gives_it_back():
    async def test() -> None:
        queue, served = FairQueue(100, at_once=1), list[str]()
        first, second, third = (Visitor(queue, name, served) for name in "abc")
        await settle()
        first.leave()
        await asyncio.sleep(0)  # the first leaves and gives its place to the second ...
        second.task.cancel()  # ... which has not run since
        await settle()
        assert served == ["a", "c"]
        third.leave()
        await third.task

    run(test)


def test_one_that_is_alone_waits_for_the_others_and_they_for_it():
    async def test() -> None:
        queue, served = FairQueue(100, at_once=4), list[str]()
        before = [Visitor(queue, "a", served) for _ in range(2)]
        await settle()
        lonely = [Visitor(queue, "alone", served, alone=True) for _ in range(2)]
        await settle()
        after = Visitor(queue, "b", served)
        await settle()
        assert served == ["a", "a"]
        before[0].leave()
        await settle()
        assert served == ["a", "a"]
        before[1].leave()
        await settle()
        assert served == ["a", "a", "alone"]
        lonely[0].leave()
        await settle()
        assert served == ["a", "a", "alone", "alone"]
        lonely[1].leave()
        await settle()
        assert served == ["a", "a", "alone", "alone", "b"]
        after.leave()
        await after.task

    run(test)


def test_when_one_that_would_be_alone_gives_up_the_others_go_on():
    async def test() -> None:
        queue, served = FairQueue(100, at_once=2), list[str]()
        before = Visitor(queue, "a", served)
        await settle()
        lonely = Visitor(queue, "alone", served, alone=True)
        after = Visitor(queue, "b", served)
        await settle()
        lonely.task.cancel()
        await settle()
        assert served == ["a", "b"]
        for each in (before, after):
            each.leave()
            await each.task

    run(test)


@given(
    st.lists(
        st.tuples(st.sampled_from(["come", "alone", "leave", "cancel"]), st.integers(0, 9)),
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_no_place_is_lost_and_none_is_given_twice(steps: list[tuple[str, int]], at_once: int):
    async def test() -> None:
        queue, served = FairQueue(1000, at_once), list[str]()
        visitors: list[Visitor] = []
        for step, number in steps:
            if step in ("come", "alone"):
                visitors.append(Visitor(queue, f"{number % 3}", served, alone=step == "alone"))
            elif visitors:
                visitor = visitors[number % len(visitors)]
                visitor.leave() if step == "leave" else visitor.task.cancel()
            if number % 2:
                await settle()
            assert queue._serving <= at_once
        for each in visitors:
            each.leave()
        await asyncio.wait_for(
            asyncio.gather(*(each.task for each in visitors), return_exceptions=True), 5
        )
        assert queue._serving == 0
        assert not queue._turns
        assert not queue._alone

    run(test)


def test_a_client_gets_half_of_the_places_and_another_still_finds_room():
    queue = FairQueue(limit=16, at_once=4)
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(queue.hold("greedy", 1, 1))
        with pytest.raises(GatewayError) as caught, queue.hold("greedy", 1, 2.5):
            pass
        assert (caught.value.status_code, caught.value.retry_after) == (503, 3)
        assert "8 of them are yours; the limit is 16" in caught.value.detail
        with queue.hold("modest", 4, 1), queue.hold("other", 2, 1):
            assert queue.held == 14
            with pytest.raises(GatewayError), queue.hold("large", 3, 1):
                pass
    assert queue.held == 0


def test_a_request_larger_than_the_limit_passes_when_nothing_else_is_there():
    queue = FairQueue(limit=2, at_once=1)
    with queue.hold("a", 5, 1):
        assert queue.held == 5
        with pytest.raises(GatewayError), queue.hold("b", 1, 1):
            pass
    assert queue.held == 0
