"""A Prometheus and an Alertmanager with the files of monitoring/, and what they report to."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import ROOT
from tests.integration.gateways import free_port

FOLDER = ROOT / "monitoring"


def program(name: str) -> str:
    """A program of Debian; the test is skipped where it is missing."""
    if (found := shutil.which(name)) is None:
        pytest.skip(f"{name} is missing: apt-get install prometheus prometheus-alertmanager")
    return found


def wait_for(what: str, look: Callable[[], Any], seconds: float = 90.0) -> Any:
    """What a function returns, once that is something.

    Args:
        what: Is awaited, for the failure.
        look: Is called until then.
        seconds: To wait.
    """
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.1)
    return found


class Receiver:
    """Takes the spans of an OpenTelemetry collector, and the webhook of Alertmanager.

    Attributes:
        address: Where it listens.
        spans: Name of the service, and the span, of each one that has come.
        alerts: Each alert that has come, as Alertmanager writes it.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    receiver.take_spans(body)
                else:
                    receiver.alerts += json.loads(body)["alerts"]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing: the output of a test is for its failure."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def take_spans(self, body: bytes) -> None:
        """Note the spans of one message in OTLP."""
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope.spans]

    @contextlib.contextmanager
    def listening(self) -> Iterator[Receiver]:
        """Listen until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@contextlib.contextmanager
def _process(words: list[str | Path], address: str, log: Path) -> Iterator[str]:
    """The address of a program of Prometheus', once it is ready."""
    with log.open("w") as out:
        started = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)

    def ready() -> bool:
        assert started.poll() is None, log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{address}/-/ready").status_code == 200
        return False

    try:
        wait_for(f"{words[0]}", ready)
        yield address
    finally:
        started.terminate()
        started.wait()


@contextlib.contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """The address of an Alertmanager with the shipped file, which waits less."""
    config = yaml.safe_load((FOLDER / "alertmanager" / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for each in receiver["webhook_configs"]:
            each["url"] = webhook
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    words: list[str | Path] = [
        program("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with _process(words, f"http://{address}", folder / "alertmanager.log") as found:
        yield found


@contextlib.contextmanager
def prometheus(folder: Path, gateway: str, key: str, alerts: str) -> Iterator[str]:
    """The address of a Prometheus with the shipped files, which looks more often.

    Alerts fire after a second instead of after minutes; what they look at stays.
    """
    config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (job,) = config["scrape_configs"]
    (folder / "key").write_text(key)
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["static_configs"][0]["targets"] = [gateway.removeprefix("http://")]
    for manager in config["alerting"]["alertmanagers"]:
        manager["static_configs"][0]["targets"] = [alerts.removeprefix("http://")]
    (folder / "rules").mkdir()
    for file in (FOLDER / "prometheus" / "rules").glob("*.yml"):
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = "1s"
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    words: list[str | Path] = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
    ]
    with _process(words, f"http://{address}", folder / "prometheus.log") as found:
        yield found


def ask(address: str, expr: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each line that Prometheus gives for a query now."""
    query = urllib.parse.urlencode({"query": expr})
    reply = httpx.get(f"{address}/api/v1/query?{query}").json()
    assert reply["status"] == "success", reply
    return [(each["metric"], float(each["value"][1])) for each in reply["data"]["result"]]
