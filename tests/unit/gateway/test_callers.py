"""Token buckets, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access import callers
from gateway.access.callers import Caller, Rates
from gateway.errors import GatewayError


class Clock:
    """Stands for the event loop, of which only the time is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def time(self) -> float:
        return self.now


def refused(rates: Rates, caller: Caller, pictures: int = 1) -> int:
    with pytest.raises(GatewayError) as caught:
        rates.take(caller, pictures)
    assert (caught.value.status_code, caught.value.code) == (429, "too_many_requests")
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_a_client_may_send_a_burst_and_then_its_rate(monkeypatch: pytest.MonkeyPatch):
    clock, rates, caller = Clock(monkeypatch), Rates(burst=5), Caller("a", 0, rate=2)
    for _ in range(5):
        rates.take(caller, 1)
    assert refused(rates, caller) == 1
    answered = 0
    for _ in range(1000):
        clock.now += 0.1
        try:
            rates.take(caller, 1)
            answered += 1
        except GatewayError:
            pass
    assert answered == pytest.approx(200, abs=2)
    clock.now += 1000
    for _ in range(5):  # no more than a burst, however long the pause
        rates.take(caller, 1)
    refused(rates, caller)


def test_a_request_with_more_pictures_than_a_burst_passes_and_is_paid_for_later(
    monkeypatch: pytest.MonkeyPatch,
):
    clock, rates, caller = Clock(monkeypatch), Rates(burst=5), Caller("a", 0, rate=2)
    rates.take(caller, 25)
    assert refused(rates, caller) == 11
    clock.now += 10.4
    refused(rates, caller)
    clock.now += 0.2
    rates.take(caller, 1)


def test_clients_have_buckets_of_their_own_and_some_have_no_limit(
    monkeypatch: pytest.MonkeyPatch,
):
    Clock(monkeypatch)
    rates = Rates(burst=1)
    rates.take(Caller("a", 0, rate=1), 1)
    refused(rates, Caller("a", 0, rate=1))
    rates.take(Caller("b", 0, rate=1), 1)
    for _ in range(100):
        rates.take(Caller("free", 0, rate=0), 16)


def test_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    clock, rates = Clock(monkeypatch), Rates(burst=1)
    rates.take(Caller("busy", 0, rate=1e-6), 2)
    for number in range(3 * callers.MANY):
        clock.now += 1
        rates.take(Caller(f"{number}", 0, rate=1), 1)
    assert len(rates._buckets) <= callers.MANY
    refused(rates, Caller("busy", 0, rate=1e-6))
