"""A clock that is set while a picture waits: the deadline that the handler is told is one of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.access.bodies import Bodies
from gateway.access.callers import CALLER, Caller
from gateway.captioning.captioner import Captioner
from gateway.captioning.torchserve import DEADLINE_HEADER, TorchServeClient
from gateway.errors import GatewayError
from gateway.measures import Measures
from gateway.settings import Settings

CAPTION = {
    "caption": "a boat",
    "captions": [{"caption": "a boat", "confidence": 0.5, "log_prob": -1.0, "tokens": 3}],
    "model": {"name": "clipcap", "version": "1.0"},
}
DEADLINE = {"error": {"status": 504, "code": "deadline", "message": "too much to do"}}


class Handler(BaseHTTPRequestHandler):
    """Answers as the handler does: 504 once the time that a request names is over."""

    steps: list[float]  # seconds by which the clock is set while a request waits, one each
    clock: list[float]  # seconds that it is ahead by now

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.clock[0] += self.steps.pop(0) if self.steps else 0.0
        late = float(self.headers[DEADLINE_HEADER]) < time.time()
        body = json.dumps(DEADLINE if late else CAPTION).encode()
        self.send_response(504 if late else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No lines among those of the tests."""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    true_time = time.time
    Handler.clock, Handler.steps = [0.0], []
    monkeypatch.setattr(time, "time", lambda: true_time() + Handler.clock[0])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def caption(address: str) -> object:
    async def ask() -> object:
        settings = Settings(inference=address, management=address, metrics=address)
        torchserve = TorchServeClient(settings)
        torchserve.backends.current.description = {"max_pictures": 1}
        CALLER.set(Caller("someone", asyncio.get_running_loop().time() + 60))
        measures = Measures()
        bodies = Bodies(settings, measures)
        captioner = Captioner(torchserve, settings, measures, None, bodies)
        (outcome,) = await captioner.caption([b"picture"], {})
        await torchserve.close()
        return outcome

    return asyncio.run(ask())


@pytest.mark.parametrize("step", [90.0, 3600.0, -3600.0])
def test_a_request_that_the_clock_has_made_late_is_sent_again(backend: str, step: float):
    Handler.steps = [step]
    assert getattr(caption(backend), "caption", None) == "a boat"


def test_a_request_that_is_late_by_a_sound_clock_is_not_sent_again(
    backend: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bytes] = []
    monkeypatch.setattr(Handler, "do_POST", lambda self: _answer_late(self, asked))
    outcome = caption(backend)
    assert isinstance(outcome, GatewayError)
    assert (outcome.status_code, outcome.code) == (504, "deadline")
    assert len(asked) == 1


def _answer_late(handler: Handler, asked: list[bytes]) -> None:
    asked.append(handler.rfile.read(int(handler.headers["Content-Length"])))
    body = json.dumps(DEADLINE).encode()
    handler.send_response(504)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_a_clock_that_is_set_at_each_try_ends_in_an_error(backend: str):
    Handler.steps = [3600.0, 3600.0]
    outcome = caption(backend)
    assert isinstance(outcome, GatewayError)
    assert (outcome.status_code, outcome.retry_after) == (503, 2)
