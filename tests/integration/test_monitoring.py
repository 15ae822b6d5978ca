"""Telemetry of a real captioner: its metrics, alerts, logs and traces, as an operator gets them.

A Prometheus and an Alertmanager run with the shipped files, in front of a gateway and a TorchServe
of their own, whose worker ends.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from monitoring.panels import RATE, ROWS
from tests.integration.gateways import addresses_of, process
from tests.integration.monitors import Receiver, alertmanager, ask, program, prometheus, wait_for
from tests.pictures import sound

PNG = sound()["png"]


@dataclasses.dataclass(frozen=True)
class Watched:
    """A captioner in production.

    Attributes:
        server: The TorchServe.
        gateway: Address of the gateway.
        log: What the gateway writes.
        key: Of a client.
        prometheus: Address.
        alertmanager: Address.
        receiver: Takes spans and alerts.
    """

    server: TorchServe
    gateway: str
    log: Path
    key: str
    prometheus: str
    alertmanager: str
    receiver: Receiver

    def caption(self, data: bytes = PNG, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.key}", **headers}
        return httpx.post(f"{self.gateway}/v1/captions", content=data, headers=given, timeout=90)

    def lines(self) -> list[dict[str, Any]]:
        """The log of the gateway, each line of which is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def handler_lines(self) -> list[dict[str, Any]]:
        """The log of requests of the handler."""
        text = (self.server.logs / "request_log.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def firing(self) -> set[str]:
        found = ask(self.prometheus, 'ALERTS{alertstate="firing"}')
        return {labels["alertname"] for labels, _ in found}


@pytest.fixture(scope="module", autouse=True)
def _same_workers() -> None:
    """Not here: the server is one of its own, and its worker ends."""


@pytest.fixture(scope="module")
def watched(tiny_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    for name in ("prometheus", "prometheus-alertmanager"):
        program(name)
    folder = tmp_path_factory.mktemp("watched")
    with Receiver().listening() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        patch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # ms until spans are sent
        config = derived_config(folder / "config.properties", on_free_ports())
        server = TorchServe(folder, tiny_archive, config)
        server.start()
        keys = {name: add_key(folder / "keys", name) for name in ("laptop", "prometheus")}
        settings = {**addresses_of(server), "keys": folder / "keys", "json_log": "true"}
        try:
            with (
                process(folder / "gateway.log", **settings) as (_, gateway),
                alertmanager(folder, f"{receiver.address}/alerts") as alerts,
                prometheus(folder, gateway, keys["prometheus"], alerts) as scraped,
            ):
                yield Watched(
                    *(server, gateway, folder / "gateway.log", keys["laptop"]),
                    *(scraped, alerts, receiver),
                )
        finally:
            server.stop()


def test_every_query_of_the_dashboard_has_data(watched: Watched):
    missing = {
        query.expr.replace(RATE, "10s")
        for panels in ROWS.values()
        for panel in panels
        for query in panel.queries
    }
    assert len(missing) > 25

    def all_found() -> bool:
        assert watched.caption().status_code == 200
        assert watched.caption(b"no picture").status_code == 400
        for expr in sorted(missing):
            if any(math.isfinite(value) for _, value in ask(watched.prometheus, expr)):
                missing.discard(expr)
        return not missing

    try:
        wait_for("data", all_found)
    finally:
        assert not missing
    # A calm captioner: nothing fires.
    assert watched.firing() == set()
    memory = ask(watched.prometheus, "clipcap:resident_bytes")
    assert {labels["process"] for labels, _ in memory} == {"gateway", "worker"}
    assert all(2e7 < value < 4e9 for _, value in memory)


def test_a_request_has_one_line_in_each_log_with_the_same_id(watched: Watched):
    reply = watched.caption(**{"X-Request-Id": "photo-17"})
    assert reply.headers["X-Request-Id"] == "photo-17"

    def line(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        found = [each for each in lines if each.get("id") == "photo-17"]
        assert len(found) < 2
        return found[0] if found else None

    ours = wait_for("the gateway's line", lambda: line(watched.lines()))
    assert 0 < ours.pop("seconds") < 60
    assert ours.pop("time").endswith("+00:00")
    assert len(ours.pop("trace")) == 32
    assert ours == {
        "level": "INFO",
        "id": "photo-17",
        "method": "POST",
        "route": "/v1/captions",
        "status": 200,
        "pictures": 1,
        "bytes": len(PNG),
        "caller": "laptop",
        "model_version": "1.0",
        "abandoned": False,
    }
    handlers = wait_for("the handler's line", lambda: line(watched.handler_lines()))
    assert handlers["seconds"].keys() == {"decode", "encode", "generate"}
    del handlers["seconds"], handlers["trace"]
    assert handlers == {
        "id": "photo-17",
        "status": 200,
        "code": None,
        "pictures": 1,
        "codes": {},
        "batch": {"requests": 1, "pictures": 1},
    }
    # model_log is for people.
    model_log = (watched.server.logs / "model_log.log").read_text()
    assert "photo-17" not in model_log
    assert "captioner clipcap 1.0 is ready" in model_log


def test_an_id_that_could_forge_a_line_is_replaced(watched: Watched):
    for given in ("a b", "x" * 200, '","status":200,"'):
        reply = watched.caption(**{"X-Request-Id": given})
        assert reply.status_code == 200
        assert reply.headers["X-Request-Id"] != given
    direct = httpx.post(
        f"{watched.server.rest}/predictions/clipcap",
        content=PNG,
        headers={"X-Request-Id": '{"a": 1}', "traceparent": "00-zz"},
    )
    assert direct.status_code == 200
    assert all(set(each["id"]) <= set("0123456789abcdefghijklmnopqrstuvwxyz-")
               for each in watched.handler_lines())  # fmt: skip


def test_the_spans_of_a_request_make_one_trace_through_both(watched: Watched):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    # The client wants nothing to be recorded, which is not for it to say.
    header = f"00-{trace}-00f067aa0ba902b7-00"
    assert watched.caption(traceparent=header, tracestate="a=b").status_code == 200

    def whole() -> dict[str, tuple[str, Any]] | None:
        own = [each for each in watched.receiver.spans if each[1].trace_id.hex() == trace]
        return {span.name: (service, span) for service, span in own} if len(own) == 7 else None

    found = wait_for("the trace", whole)
    parents = {
        "POST /v1/captions": None,
        "queue": "POST /v1/captions",
        "torchserve": "POST /v1/captions",
        "clipcap": "torchserve",
        "decode": "clipcap",
        "encode": "clipcap",
        "generate": "clipcap",
    }
    assert found.keys() == parents.keys()
    for name, parent in parents.items():
        service, span = found[name]
        ours = name in ("POST /v1/captions", "queue", "torchserve")
        assert service == ("clipcap-gateway" if ours else "clipcap-handler")
        assert span.parent_span_id == (found[parent][1].span_id if parent else b"")
        if parent:  # clocks of one machine
            outer = found[parent][1]
            assert outer.start_time_unix_nano - 2e6 <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= outer.end_time_unix_nano + 2e6
        assert "a=b" not in str(span)
    attributes = {each.key: each.value for each in found["POST /v1/captions"][1].attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["clipcap.model_version"].string_value == "1.0"
    (handlers,) = [each for each in watched.handler_lines() if each.get("trace") == trace]
    assert attributes["request.id"].string_value == handlers["id"]


@pytest.mark.parametrize(
    "header", ["00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-x", "00-" + "a" * 5000, "\x7f\xff"]
)
def test_a_hostile_traceparent_does_no_harm(watched: Watched, header: str):
    reply = httpx.post(
        f"{watched.gateway}/v1/captions",
        content=PNG,
        headers={
            b"Authorization": f"Bearer {watched.key}".encode(),
            b"traceparent": header.encode("latin-1"),
        },
    )
    assert reply.status_code == 200, reply.text


def test_a_cause_silences_its_consequences(watched: Watched):
    def alert(name: str, silenced_by: str) -> dict[str, Any]:
        return {"labels": {"alertname": name, "job": "test", "silenced_by": silenced_by}}

    alerts = [
        alert("ClipcapTorchServeDown", "gateway"),
        alert("ClipcapNoReadyWorker", "gateway torchserve"),
        alert("ClipcapErrors", "gateway torchserve worker"),
        alert("ClipcapMemoryGrowth", "gateway"),
    ]
    assert httpx.post(f"{watched.alertmanager}/api/v2/alerts", json=alerts).status_code == 200

    def states() -> dict[str, str]:
        found = httpx.get(f"{watched.alertmanager}/api/v2/alerts", params={"filter": "job=test"})
        return {each["labels"]["alertname"]: each["status"]["state"] for each in found.json()}

    expected = {
        "ClipcapTorchServeDown": "active",
        "ClipcapNoReadyWorker": "suppressed",
        "ClipcapErrors": "suppressed",
        "ClipcapMemoryGrowth": "active",
    }
    wait_for("the silence", lambda: states() == expected)


def test_the_worker_ends_and_the_alert_fires_and_clears(watched: Watched):
    (worker,) = watched.server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for("the alert", lambda: "ClipcapNoReadyWorker" in watched.firing())

    def told(status: str) -> list[dict[str, Any]]:
        return [
            each
            for each in watched.receiver.alerts
            if each["labels"]["alertname"] == "ClipcapNoReadyWorker" and each["status"] == status
        ]

    (alert, *_) = wait_for("its message", lambda: told("firing"))
    assert "has had 0 ready workers for a minute" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#clipcapnoreadyworker"
    wait_for("the new worker", watched.server.workers)
    wait_for("the end of the alert", lambda: "ClipcapNoReadyWorker" not in watched.firing())
    wait_for("the message of its end", lambda: told("resolved"))
    assert watched.caption().status_code == 200


def test_the_shipped_files_are_sound(tmp_path: Path):
    checks = [
        (program("promtool"), "check", "config", "--syntax-only", "prometheus/prometheus.yml"),
        (program("amtool"), "check-config", "alertmanager/alertmanager.yml"),
    ]
    for *words, file in checks:
        done = subprocess.run(
            [*words, f"monitoring/{file}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
