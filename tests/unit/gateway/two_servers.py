"""Two servers that answer like TorchServe with a captioner, and a gateway in front of them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.listening.listener import bind
from gateway.listening.server import Server
from gateway.measures import Measures
from gateway.settings import Settings
from tests.integration.gateways import free_port


class FakeTorchServe:
    """A server whose captions and faults a test sets.

    Attributes:
        caption: What it gives.
        fault: A status with which it fails; 0 for none.
        seconds: How long it takes, until it is `released`.
        asked: The pictures that came.
    """

    def __init__(self, caption: str, version: str) -> None:
        self.caption, self.version = caption, version
        self.fault, self.seconds = 0, 0.0
        self.asked: list[bytes] = []
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.seconds:
                    fake.released.wait(fake.seconds)
                self._send(*fake.reply(fake.asked[-1]))

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    page = "# HELP ts_requests Requests.\n# TYPE ts_requests counter\n"
                    self._send(200, f'{page}ts_requests_total{{model="clipcap"}} 3\nts_up 1\n')
                    return
                model = {"name": "clipcap", "version": fake.version}
                description = {"model": model, "options": {}, "max_pictures": 8, "formats": []}
                workers = [{"status": "READY"}]
                found = {"workers": workers, "jobQueueStatus": {"pendingRequests": 0}}
                self._send(200, json.dumps([{**found, "customizedMetadata": description}]))

            def _send(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the gateway may have left
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def reply(self, picture: bytes) -> tuple[int, str]:
        if picture == b"no picture":
            error = {"status": 400, "code": "image_undecodable", "message": "no picture"}
            return 400, json.dumps({"error": error})
        if self.fault:
            error = {"code": self.fault, "type": "InternalServerException", "message": "failed"}
            return self.fault, json.dumps(error)
        best = {"caption": self.caption, "confidence": 0.7, "log_prob": -2.0, "tokens": 6}
        model = {"name": "clipcap", "version": self.version}
        return 200, json.dumps({"captions": [best], "model": model})

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Two:
    """A gateway with two captioners behind it.

    Attributes:
        stable: The captioner that is served.
        candidate: The one that is tried out.
        torchserve: The gateway's client of both.
        address: Of the gateway.
    """

    def __init__(self, **changes: Any) -> None:
        self.stable = FakeTorchServe("two red boats on a lake", "1")
        self.candidate = FakeTorchServe("two red boats on the sea", "2")
        self._changes = {"port": free_port(), "candidate_failures": 3, **changes}
        settings = self.settings()
        measures = Measures()
        self.torchserve = TorchServeClient(settings)
        app = create_app(settings, self.torchserve, measures)
        self._gateway = Server(app, settings, measures, bind(settings), None)
        self._thread = threading.Thread(target=self._gateway.run)
        self._thread.start()
        while not self._gateway.started:
            time.sleep(0.01)
        self.address = settings.address

    def settings(self, **changes: Any) -> Settings:
        stable, candidate = self.stable.address, self.candidate.address
        addresses = {
            name + kind: address
            for name, address in (("", stable), ("candidate_", candidate))
            for kind in ("inference", "management", "metrics")
        }
        return Settings(**{**addresses, **self._changes, **changes})

    def ask(self, request_id: str = "", wanted: str = "", picture: bytes = b"x") -> httpx.Response:
        headers = {"X-Request-Id": request_id, "X-Captioner": wanted}
        return httpx.post(
            f"{self.address}/v1/captions",
            content=picture,
            headers={name: text for name, text in headers.items() if text},
            timeout=30,
            trust_env=False,
        )

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"{self.address}/metrics", timeout=30, trust_env=False).text
        return {
            "/".join([sample.name, *_values(sample.labels)]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def close(self) -> None:
        self._gateway.should_exit = True
        self._thread.join(30)
        self.stable.close()
        self.candidate.close()


def _values(labels: dict[str, str]) -> list[str]:
    """The values of labels, that of `version` first."""
    return [labels[name] for name in sorted(labels, key=lambda name: (name != "version", name))]


@contextlib.contextmanager
def two(**changes: Any) -> Iterator[Two]:
    """A gateway whose candidate gets what the settings say, by default every request."""
    found = Two(**{"candidate_share": 100.0, **changes})
    try:
        yield found
    finally:
        found.close()
