"""Starting and stopping, as far as no server is needed for it."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from deploy import serve
from deploy.torchserve import (
    CONFIG,
    ServeError,
    TorchServe,
    derived_config,
    on_free_ports,
    read_properties,
)
from loadtests.__main__ import judge

LOOPBACK = "127.0.0.1"


def test_the_shipped_configuration_is_closed():
    properties = read_properties(CONFIG)
    for name in ("inference_address", "management_address", "metrics_address"):
        assert properties[name].startswith(f"http://{LOOPBACK}:")
    assert properties["grpc_inference_address"] == LOOPBACK
    assert properties["grpc_management_address"] == LOOPBACK
    assert properties["enable_model_api"] == "false"
    assert not properties["allowed_urls"].startswith(("http", "file://.*"))
    assert properties["metrics_mode"] == "prometheus"


def test_every_line_of_the_configuration_is_explained():
    explained = False
    for line in CONFIG.read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line:
            explained = False
        else:
            assert explained, f"nothing explains {line!r}"


def test_a_derived_configuration_differs_where_it_should(tmp_path: Path):
    changes = on_free_ports()
    derived = read_properties(derived_config(tmp_path / "a" / "config.properties", changes))
    original = read_properties(CONFIG)
    assert {name for name in original if original[name] != derived[name]} == set(changes)
    assert len({value.rpartition(":")[2] for value in changes.values()}) == 5
    server = TorchServe(tmp_path, tmp_path / "x.mar", tmp_path / "a" / "config.properties")
    assert server.rest == changes["inference_address"]
    assert server.grpc == f"grpc://{LOOPBACK}:{changes['grpc_inference_port']}"


def server_in(tmp_path: Path) -> TorchServe:
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    archive = tmp_path / "clipcap.mar"
    archive.write_bytes(b"")
    return TorchServe(tmp_path, archive, config)


def test_a_missing_archive_says_how_to_make_one(tmp_path: Path):
    server = server_in(tmp_path)
    server.archive.unlink()
    with pytest.raises(ServeError, match="make archive"):
        server.start()


def test_a_port_in_use_is_named_with_its_owner(tmp_path: Path):
    server = server_in(tmp_path)
    port = int(server.management.rpartition(":")[2])
    with (
        socket.create_server((LOOPBACK, port)),
        pytest.raises(ServeError, match=rf"port {port} .*{os.getpid()}.*management_address"),
    ):
        server.start()
    assert not server.logs.exists()  # refused before anything was touched


@pytest.mark.parametrize(
    "state",
    [
        "not json",
        "{}",
        json.dumps({"pid": 2**22 + 1, "created": 0}),
        json.dumps({"pid": os.getpid(), "created": 0}),
    ],
)
def test_another_process_is_never_taken_for_the_server(tmp_path: Path, state: str):
    server = server_in(tmp_path)
    (tmp_path / "state.json").write_text(state)
    assert server.process() is None
    assert server.stop() is False
    assert not (tmp_path / "state.json").exists()


def test_what_a_killed_server_unpacked_is_removed(tmp_path: Path):
    server = server_in(tmp_path)
    (tmp_path / "left").mkdir()
    state = {"pid": 2**22 + 1, "created": 0, "temporary": str(tmp_path / "left")}
    (tmp_path / "state.json").write_text(json.dumps(state))
    server.stop()
    assert not (tmp_path / "left").exists()


def test_no_workers_while_nobody_answers(tmp_path: Path):
    assert server_in(tmp_path).workers() == []


def test_the_commands_answer_when_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = server_in(tmp_path).config
    monkeypatch.setattr(serve, "STATE", tmp_path)
    monkeypatch.setattr("sys.argv", ["serve", "stop"])
    assert serve.main() == 0
    assert "no server of this folder is running" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["serve", "status", "--config", str(config)])
    assert serve.main() == 1
    assert "not running" in capsys.readouterr().out


def test_a_precision_is_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(serve, "STATE", tmp_path)
    monkeypatch.setattr("sys.argv", ["serve", "start", "--precision", "fp16"])
    assert serve.main() == 1
    assert "precision fp16 was given without a checkpoint" in capsys.readouterr().err


def test_what_cannot_be_served_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(serve, "STATE", tmp_path)
    monkeypatch.setattr("sys.argv", ["serve", "start", "--sample", str(tmp_path / "gone.jpg")])
    assert serve.main() == 1
    assert "gone.jpg does not exist" in capsys.readouterr().err
    running = psutil.Process()
    monkeypatch.setattr(TorchServe, "process", lambda _: running)
    mine = derived_config(tmp_path / "mine.properties", on_free_ports())
    shutil.copyfile(mine, tmp_path / "started.properties")
    address = read_properties(mine)["inference_address"]
    monkeypatch.setattr("sys.argv", ["serve", "start", "--checkpoint", "models/mine"])
    assert serve.main() == 1
    assert f"already serving at {address}" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["serve", "start"])  # with the usual configuration
    assert serve.main() == 1
    assert f"already serving at {address}" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["serve", "start", "--config", str(mine)])
    assert serve.main() == 0
    assert f"already serving at {address}" in capsys.readouterr().out


def test_a_configuration_without_a_door_names_what_it_lacks(tmp_path: Path):
    config = tmp_path / "mine.properties"
    config.write_text("inference_address=http://127.0.0.1:8080\n")
    with pytest.raises(ServeError, match=r"mine\.properties lacks management_address, metrics_"):
        TorchServe(tmp_path, tmp_path / "x.mar", config).check_ports()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inference_address", "http://127.0.0.1"),
        ("management_address", "http://127.0.0.1:8081/"),
        ("metrics_address", "http://127.0.0.1:many"),
        ("grpc_inference_port", "http://127.0.0.1:7070"),
        ("grpc_management_port", "99999"),
    ],
)
def test_a_door_that_names_no_port_is_refused(tmp_path: Path, name: str, value: str):
    config = derived_config(tmp_path / "mine.properties", {**on_free_ports(), name: value})
    with pytest.raises(ServeError, match=rf"mine\.properties: {name} is '{value}'; it must be"):
        TorchServe(tmp_path, tmp_path / "x.mar", config).check_ports()


def test_workers_are_asked_without_the_proxy_that_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server = server_in(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    workers = [{"pid": pid, "status": "READY"} for pid in (os.getpid(), ended.pid)]
    described = [{"workers": workers, "minWorkers": 1}]

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 (the library's name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(described).encode())

    port = int(server.management.rpartition(":")[2])
    with http.server.HTTPServer(("127.0.0.1", port), Answer) as door:
        Thread(target=door.serve_forever, daemon=True).start()
        assert server.workers() == [os.getpid()]  # and not the one that has ended
        door.shutdown()


def test_a_port_in_use_stops_serving_before_the_pipeline_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    server = server_in(tmp_path)
    monkeypatch.setattr(serve, "STATE", tmp_path)
    monkeypatch.setattr("sys.argv", ["serve", "start", "--config", str(server.config)])
    with socket.create_server((LOOPBACK, int(server.rest.rpartition(":")[2]))):
        assert serve.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: port ")
    assert err.count("\n") == 1


FIGURES = {
    "wrong_replies": 0,
    "ties_percent": 0.5,
    "unanswered": 0,
    "median_ms": 100,
    "p95_ms": 200,
    "worker_growth_mb": 10,
    "requests_per_second": 9.0,
    "worker_survived": True,
}
LIMITS = {
    "max_wrong_replies": 0,
    "max_ties_percent": 2,
    "max_unanswered": 0,
    "max_median_ms": 150,
    "max_p95_ms": 300,
    "max_worker_growth_mb": 50,
    "min_requests_per_second": 5,
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"wrong_replies": 1}, "1 wrong replies; the limit is 0"),
        ({"ties_percent": 2.5}, "2.5 ties percent; the limit is 2"),
        ({"p95_ms": 301}, "301 p95 ms; the limit is 300"),
        ({"requests_per_second": 4.5}, "4.5 requests per second; at least 5 are wanted"),
        ({"worker_survived": False}, "a worker was restarted"),
    ],
)
def test_the_load_test_is_judged_by_its_limits(change: dict[str, Any], problem: str | None):
    assert judge({**FIGURES, **change}, LIMITS) == ([] if problem is None else [problem])
