"""The gateway's benchmark runs, in miniature, and shows what it measured."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import gateway
from benchmarks.clients import burst_rate
from benchmarks.connections import crowd, flood, in_turn, prediction
from benchmarks.gateway_figures import gateway_section
from deploy.torchserve import TorchServe
from model.refusal import Refusal
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

REQUEST = prediction(sound()["jpeg"])


def test_both_servers_are_asked_in_turn_and_flooded(server: TorchServe):
    with running(settings_for(server)) as address:
        addresses = {"TorchServe": server.rest, "gateway": address}
        seconds = asyncio.run(in_turn(addresses, [REQUEST], 5))
        assert {name: len(own) for name, own in seconds.items()} == dict.fromkeys(addresses, 5)
        assert min(map(min, seconds.values())) > 0
        for each in addresses.values():
            answered = asyncio.run(flood(each, [REQUEST], 4, 21))
            assert len(answered) == 21
            assert answered == sorted(answered)


def test_a_reply_without_captions_ends_the_measurement(server: TorchServe):
    with pytest.raises(Refusal, match="the server answered 400 .*image_undecodable"):
        asyncio.run(flood(server.rest, [prediction(b"no picture")], 2, 2))


def test_the_first_and_the_last_bursts_are_not_counted():
    # Bursts of two: the first is late, five are a second apart, the last two take longer.
    moments = [9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 18.0, 25.0]
    answered = [moment for moment in moments for _ in range(2)]
    assert burst_rate(answered, 2) == pytest.approx(2.0)


def test_a_crowd_is_there_while_others_are_answered(server: TorchServe):
    settings = settings_for(server)

    async def beside(address: str) -> int:
        async with crowd(address, idle=5, slow=3) as others:
            await in_turn({"gateway": address}, [REQUEST], 3)
            assert not any(each.done() for each in others)
            connections = psutil.Process(os.getpid()).net_connections("tcp")
            ports = [each.raddr.port for each in connections if each.raddr]
            return ports.count(settings.port)

    with running(settings) as address:
        assert asyncio.run(beside(address)) >= 8


def test_connections_of_a_crowd_that_the_gateway_closes_are_noticed(server: TorchServe):
    async def closed(address: str) -> list[bool]:
        async with crowd(address, idle=2, slow=3) as others:
            await asyncio.wait(others[2:], timeout=30)
            return [each.done() for each in others]

    with running(settings_for(server, body_seconds=0.2)) as address:
        assert asyncio.run(closed(address)) == [False, False, True, True, True]


def test_a_quick_run_measures_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--quick", "--requests", "100", "--out", str(tmp_path)]
    monkeypatch.setenv("GATEWAY_PORT", "0")  # put back after the test
    monkeypatch.setattr(
        sys, "argv", ["benchmarks.gateway", *words, "--plot", str(tmp_path / "plot.png")]
    )
    gateway.main()
    results = json.loads((tmp_path / "gateway.json").read_text())
    assert min(results["full"]["images_per_second"].values()) > 0
    assert results["full"]["gateway_cpu_ms"] > 0
    steps = results["memory"]["steps"]
    assert [each["requests"] for each in steps] == list(range(0, 101, 10))
    assert min(each["resident_mb"] for each in steps) > 20
    shown = gateway_section({"here": results})
    assert f"| gateway | {results['alone']['gateway']['p50_ms']:.1f} ms |" in shown
    assert "| 50 idle, 10 slow |" in shown
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_requests_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    words = ["benchmarks.gateway", "--requests", "5", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Refusal, match="--requests is 5; it must be 100 or more"):
        gateway.main()
