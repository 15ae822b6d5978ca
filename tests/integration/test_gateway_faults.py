"""The gateway when something behind it fails, and when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from deploy.properties import ROOT
from deploy.torchserve import TorchServe
from loadtests.chaos.faulty_archive import ended_once
from tests.integration.gateways import free_port, running, settings_for
from tests.pictures import sound

PNG = sound()["png"]


@pytest.fixture(scope="module")
def gateway(deadly: TorchServe) -> Iterator[str]:
    with running(settings_for(deadly, restart_seconds=60, deadline_seconds=120)) as address:
        yield address


def ask(gateway: str, num_beams: int) -> httpx.Response:
    options = {"num_beams": num_beams}
    return httpx.post(f"{gateway}/v1/captions", content=PNG, params=options, timeout=150)


def test_a_picture_whose_worker_ended_is_sent_once_more(deadly: TorchServe, gateway: str):
    marker = ended_once(deadly)
    marker.unlink(missing_ok=True)
    before = deadly.workers()
    reply = ask(gateway, 6)
    assert marker.exists()
    assert reply.status_code == 200, reply.text
    assert deadly.workers() != before
    assert "gateway_pictures_resent_total 1.0" in httpx.get(f"{gateway}/metrics").text


def test_a_picture_that_ends_workers_gets_its_own_error(gateway: str):
    with ThreadPoolExecutor(8) as pool:
        # The first takes the worker for two seconds, so that the others come in one batch.
        first = pool.submit(ask, gateway, 5)
        time.sleep(0.3)
        replies = list(pool.map(lambda beams: ask(gateway, beams), [1, 1, 7, 1]))
        assert first.result().status_code == 200
    assert [reply.status_code for reply in replies] == [200, 200, 500, 200]
    error = replies[2].json()["error"]
    assert (error["status"], error["code"]) == (500, "worker_failed")


def test_it_is_not_sent_again_for_some_minutes(gateway: str):
    """Clients such as OpenAI's repeat a request that got a 500 by themselves."""

    def resent() -> list[str]:
        lines = httpx.get(f"{gateway}/metrics").text.splitlines()
        return [line for line in lines if line.startswith("gateway_pictures_resent_total")]

    assert ask(gateway, 7).status_code == 500
    before = resent()
    for _ in range(3):
        assert ask(gateway, 7).json()["error"]["code"] == "worker_failed"
    assert ask(gateway, 1).status_code == 200
    assert resent() == before


def test_requests_that_come_meanwhile_are_answered(gateway: str):
    """The worker ends twice; requests keep coming, and some share a batch with the first try."""
    other = sound()["jpeg"]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, gateway, 5)
        time.sleep(0.3)
        deadly = pool.submit(
            httpx.post,
            f"{gateway}/v1/captions",
            content=other,
            params={"num_beams": 7},
            timeout=150,
        )
        others = []
        while not deadly.done():
            others.append(pool.submit(ask, gateway, 1))
            time.sleep(0.3)
        assert first.result().status_code == 200
        assert deadly.result().json()["error"]["code"] == "worker_failed"
        assert [each.result().status_code for each in others] == [200] * len(others)
        assert len(others) > 5


def test_a_request_waits_for_a_torchserve_that_starts_again(deadly: TorchServe, gateway: str):
    assert ask(gateway, 1).status_code == 200
    deadly.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, gateway, 1)
        time.sleep(0.5)
        assert not waiting.done()
        deadly.start()
        reply = waiting.result()
    assert reply.status_code == 200, reply.text


@pytest.fixture
def process(deadly: TorchServe) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m gateway` in a process of its own, and its address."""
    port = free_port()
    settings = {
        "GATEWAY_PORT": str(port),
        "GATEWAY_INFERENCE": deadly.rest,
        "GATEWAY_MANAGEMENT": deadly.management,
        "GATEWAY_METRICS": deadly.metrics,
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{address}/healthz")
                break
            except httpx.ConnectError:
                assert started.poll() is None
                time.sleep(0.1)
        yield started, address
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


def test_sigterm_answers_what_was_accepted(process: tuple[subprocess.Popen[str], str]):
    gateway, address = process
    assert ask(address, 1).status_code == 200
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, address, 5) for _ in range(4)]
        for _ in range(100):
            if "gateway_pictures_in_flight 4.0" in httpx.get(f"{address}/metrics").text:
                break
            time.sleep(0.02)
        assert not any(each.done() for each in waiting)
        gateway.send_signal(signal.SIGTERM)
        assert [each.result().status_code for each in waiting] == [200] * 4
    log, _ = gateway.communicate(timeout=30)
    assert gateway.returncode == 0
    assert log.count("POST /v1/captions 200") == 5
    with pytest.raises(httpx.ConnectError):
        ask(address, 1)


def test_its_memory_is_small(process: tuple[subprocess.Popen[str], str]):
    gateway, address = process
    for _ in range(20):
        assert ask(address, 1).status_code == 200
    assert psutil.Process(gateway.pid).memory_info().rss < 200 << 20


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"GATEWAY_PORT": "x"}, "GATEWAY_PORT is 'x'; it must be a whole number"),
        ({"GATEWAY_COLOUR": "red"}, "GATEWAY_COLOUR is not a setting; known: GATEWAY_HOST"),
        ({"GATEWAY_HOST": "0.0.0.0"}, "give a file of keys"),
        ({"GATEWAY_KEYS": "/nowhere/keys"}, "GATEWAY_KEYS: /nowhere/keys cannot be read"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(settings: dict[str, str], text: str):
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
