"""The gateway with more work than it can do: turns, rates, deadlines, clients that leave.

With 5 beams the captioner behind it takes two seconds for a batch.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from tests.integration.gateways import running, settings_for
from tests.integration.scrape import value_of
from tests.pictures import sound

PNG = sound()["png"]


def ask(gateway: str, key: str = "", num_beams: int = 5, timeout: float = 60) -> httpx.Response:
    headers = {"X-API-Key": key} if key else {}
    options = {"num_beams": num_beams}
    return httpx.post(
        f"{gateway}/v1/captions", content=PNG, params=options, headers=headers, timeout=timeout
    )


def metric(gateway: str, name: str, key: str = "") -> float:
    text = httpx.get(f"{gateway}/metrics", headers={"X-API-Key": key}).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_one_request_does_not_wait_for_all_of_a_client_that_came_before(
    deadly: TorchServe, tmp_path: Path
):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("greedy", "modest")}
    settings = settings_for(deadly, keys=tmp_path / "keys", max_at_once=2)
    with running(settings) as gateway, ThreadPoolExecutor(12) as pool:
        greedy = [pool.submit(ask, gateway, keys["greedy"]) for _ in range(10)]
        while metric(gateway, "gateway_pictures_in_flight", keys["modest"]) < 10:
            time.sleep(0.02)
        assert metric(gateway, "gateway_pictures_waiting", keys["modest"]) >= 6
        reply = ask(gateway, keys["modest"])
        assert reply.status_code == 200
        assert sum(not each.done() for each in greedy) >= 4
        assert [each.result().status_code for each in greedy] == [200] * 10


def test_a_client_that_sends_more_than_its_rate_is_told_when_to_go_on(
    deadly: TorchServe, tmp_path: Path
):
    file = tmp_path / "keys"
    slow, fast = add_key(file, "slow", rate=0.1), add_key(file, "fast", rate=0)
    with running(settings_for(deadly, keys=file, rate=1000, burst=2)) as gateway:
        replies = [ask(gateway, slow, num_beams=1) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        error = replies[2].json()["error"]
        assert error["code"] == "too_many_requests"
        assert "slow may send 0.1 pictures a second" in error["message"]
        assert 1 <= error["retry_after_seconds"] == int(replies[2].headers["Retry-After"]) <= 10
        assert [ask(gateway, fast, num_beams=1).status_code for _ in range(8)] == [200] * 8


def test_a_client_that_left_costs_the_captioner_no_more(deadly: TorchServe):
    with running(settings_for(deadly, max_at_once=2)) as gateway, ThreadPoolExecutor(20) as pool:
        assert ask(gateway, num_beams=1).status_code == 200
        before = value_of(deadly, "clipcap_captions_total")

        def leave() -> None:
            with contextlib.suppress(httpx.ReadTimeout):
                ask(gateway, timeout=0.5)

        wait([pool.submit(leave) for _ in range(20)])
        begin = time.monotonic()
        assert ask(gateway, num_beams=1).status_code == 200
        # At most the two that were in TorchServe: twenty would take it twenty seconds.
        assert time.monotonic() - begin < 6
        assert metric(gateway, "gateway_requests_abandoned_total") == 20
        assert metric(gateway, "gateway_pictures_in_flight") == 0
        assert value_of(deadly, "clipcap_captions_total") - before <= 5


def test_what_waited_until_its_deadline_costs_the_captioner_nothing(deadly: TorchServe):
    settings = settings_for(deadly, max_at_once=2, deadline_seconds=3.0)
    with running(settings) as gateway, ThreadPoolExecutor(12) as pool:
        assert ask(gateway, num_beams=1).status_code == 200
        before = value_of(deadly, "clipcap_captions_total")
        replies = [each.result() for each in [pool.submit(ask, gateway) for _ in range(12)]]
        late = [reply for reply in replies if reply.status_code != 200]
        assert len(late) >= 6
        for reply in late:
            assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline")
            assert reply.elapsed.total_seconds() == pytest.approx(3, abs=1)
        assert ask(gateway, num_beams=1).status_code == 200
        assert value_of(deadly, "clipcap_captions_total") - before <= 7


def test_torchserve_does_not_caption_for_a_request_whose_time_is_over(deadly: TorchServe):
    url = f"{deadly.rest}/predictions/{deadly.model}"
    late = httpx.post(url, content=PNG, headers={"X-Request-Deadline": f"{time.time() - 1}"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    early = httpx.post(url, content=PNG, headers={"X-Request-Deadline": f"{time.time() + 60}"})
    assert early.status_code == 200


def test_a_full_gateway_refuses_a_request_before_it_reads_it(deadly: TorchServe):
    settings = settings_for(deadly, max_in_flight=2)
    with running(settings) as gateway, ThreadPoolExecutor(1) as pool:
        assert ask(gateway, num_beams=1).status_code == 200
        busy = pool.submit(ask, gateway)
        while metric(gateway, "gateway_pictures_in_flight") < 1:
            time.sleep(0.02)
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=10)
        connection.putrequest("POST", "/v1/captions")
        connection.putheader("Content-Length", str(len(PNG)))
        connection.endheaders()  # and no body
        refused = connection.getresponse()
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert b'"overloaded"' in refused.read()
        # The body may come yet, and the connection is as good as before.
        connection.sock.sendall(PNG)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        assert not busy.done()
        assert busy.result().status_code == 200
        assert ask(gateway, num_beams=1).status_code == 200
