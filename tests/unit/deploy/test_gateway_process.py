"""The gateway as a process: checked, started, found, ended. It answers without TorchServe too."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from deploy import captioner, processes, serve, slots
from deploy.captioner import Captioner
from deploy.errors import ServeError
from deploy.gateway import Check, Gateway
from deploy.ports import on_free_ports
from deploy.properties import derived_config, sha256_of
from deploy.torchserve import TorchServe
from tests.integration.gateways import free_port

LOOPBACK = "127.0.0.1"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, set as that of the gateway."""
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)
    port = free_port()
    monkeypatch.setenv("GATEWAY_PORT", str(port))
    return port


@pytest.fixture
def gateway(port: int, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway in front of a TorchServe that does not run; ended after the test."""
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    server = TorchServe(tmp_path / "server", tmp_path / "clipcap.mar", config)
    server.logs.mkdir(parents=True)
    shutil.copyfile(config, server.folder / "started.properties")
    gateway = Gateway(server, server.folder / "gateway")
    yield gateway
    gateway.stop()


def test_it_is_started_found_and_ended(gateway: Gateway, port: int):
    assert not gateway.was_started()
    check = gateway.check()
    address = f"http://{LOOPBACK}:{port}"
    assert check == Check(address, stop_seconds=70.0, needs_key=False)
    process = gateway.start(check)
    found = Gateway(gateway.server, gateway.folder)
    assert found.process() == process
    assert found.answers()
    assert (found.address, found.has_settings()) == (address, True)
    assert f" captions come from {gateway.server.rest}\n" in found.log.read_text()
    assert found.asks() == gateway.server.rest
    assert found.stop()
    assert not process.is_running()
    assert (found.process(), found.answers(), found.was_started()) == (None, False, False)
    assert not found.stop()


def test_it_is_moved_to_another_torchserve(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = tmp_path / "mine.toml"
    mine.write_text("max_in_flight = 7\n")
    monkeypatch.setenv("GATEWAY_SETTINGS", str(mine))
    monkeypatch.setenv("GATEWAY_METRICS", gateway.server.metrics)  # the same as is given anyway
    before = gateway.server
    process = gateway.start(gateway.check())
    other = TorchServe(
        tmp_path / "other",
        before.archive,
        derived_config(tmp_path / "other.properties", on_free_ports()),
    )

    def backends() -> list[str]:
        with urllib.request.urlopen(f"{gateway.address}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return [line for line in lines if line.startswith("gateway_backend_info{")]

    assert backends() == [f'gateway_backend_info{{inference="{before.rest}"}} 1.0']
    with pytest.raises(ServeError, match=f"^requests .* are still at {before.rest} after 0.2 s"):
        gateway.wait_left(before.rest, 0.2)
    gateway.move_to(other)
    gateway.wait_left(before.rest, 5)
    assert backends() == [f'gateway_backend_info{{inference="{other.rest}"}} 1.0']
    assert gateway.process() == process
    assert gateway.has_settings()

    file = gateway.folder / "backend.toml"
    moved = file.read_text()
    mine.write_text("max_in_flight = 0\n")
    said = f"^the gateway did not move: {mine}: max_in_flight is '0'; it must be a whole number"
    with pytest.raises(ServeError, match=said):
        gateway.move_to(before)
    assert file.read_text() == moved
    assert backends() == [f'gateway_backend_info{{inference="{other.rest}"}} 1.0']

    gateway.stop()
    with pytest.raises(ServeError, match="^the gateway does not run"):
        gateway.move_to(before)


def test_one_with_tls_is_found_to_answer(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run([*words, *files, "-subj", "/CN=a.example"], check=True, capture_output=True)
    monkeypatch.setenv("GATEWAY_TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("GATEWAY_TLS_KEY", str(key))
    gateway.start(gateway.check())
    assert gateway.address == f"https://{LOOPBACK}:{port}"
    assert gateway.answers()


def test_a_stop_waits_for_a_request_and_says_so(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, port: int
):
    monkeypatch.setattr(processes, "MOMENT_SECONDS", 0.5)
    process = gateway.start(gateway.check())
    with socket.create_connection((LOOPBACK, port)) as connection:
        # Its body is not whole, so the request is in flight.
        connection.sendall(b"POST /api/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(1)
        stop = Thread(target=gateway.stop)
        stop.start()
        time.sleep(2)
        assert process.is_running()
        connection.sendall(b"}")
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"HTTP/1.1 422 ")
        stop.join(60)
    assert not process.is_running()
    said = "the gateway answers what it has accepted, for 70 s at most ...\n"
    assert capsys.readouterr().out == said


def test_feedback_is_stored_unless_the_user_says_otherwise(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usual = dataclasses.replace(gateway, feedback=f"sqlite:///{tmp_path / 'usual.db'}")

    def database() -> str | None:
        process = usual.start(usual.check())
        try:
            assert usual.has_settings()
            return process.environ().get("GATEWAY_FEEDBACK")
        finally:
            usual.stop()

    assert database() == usual.feedback
    assert (tmp_path / "usual.db").is_file()
    mine = tmp_path / "mine.toml"
    mine.write_text(f'feedback = "sqlite:///{tmp_path / "mine.db"}"\n')
    monkeypatch.setenv("GATEWAY_SETTINGS", str(mine))
    assert database() is None
    assert (tmp_path / "mine.db").is_file()
    monkeypatch.setenv("GATEWAY_FEEDBACK", "")
    assert database() == ""


def test_another_file_of_settings_is_seen(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = tmp_path / "mine.toml"
    mine.write_text("max_in_flight = 7\n")
    monkeypatch.setenv("GATEWAY_SETTINGS", str(mine))
    gateway.start(gateway.check())
    assert gateway.has_settings()
    mine.write_text("max_in_flight = 8\n")
    assert not gateway.has_settings()
    mine.write_text(f'inference = "{gateway.server.metrics}"\n')
    with pytest.raises(ServeError, match=f"^{mine}: inference is .* remove inference$"):
        gateway.has_settings()


@pytest.mark.parametrize(
    "state",
    [
        "not json",
        "[]",
        json.dumps({"pid": 2**22 + 1, "created": 0}),
        json.dumps({"pid": os.getpid(), "created": 0}),
        json.dumps({"pid": os.getpid(), "created": processes.created(psutil.Process())}),
    ],
    ids=["no JSON", "a list", "no such process", "created later", "another program"],
)
def test_another_process_is_never_taken_for_the_gateway(gateway: Gateway, state: str):
    file = gateway.folder / "state.json"
    file.parent.mkdir()
    file.write_text(state)
    assert gateway.process() is None
    assert gateway.stop() is False
    assert not file.exists()


def test_a_port_in_use_is_named_with_its_owner(gateway: Gateway, port: int):
    said = rf"^port {port} is in use by .*\(process {os.getpid()}\).* set GATEWAY_PORT to another"
    with socket.create_server((LOOPBACK, port)), pytest.raises(ServeError, match=said):
        gateway.check()


def test_a_port_of_torchserve_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    port = gateway.server.metrics.rpartition(":")[2]
    monkeypatch.setenv("GATEWAY_PORT", port)
    with pytest.raises(ServeError, match=rf"^port {port} is that of TorchServe's metrics_address"):
        gateway.check()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"GATEWAY_PORT": "x"}, "the gateway cannot start: GATEWAY_PORT is 'x'; it must be a "),
        ({"GATEWAY_PROT": "1"}, "the gateway cannot start: GATEWAY_PROT is not a setting; known:"),
        ({"GATEWAY_HOST": "0.0.0.0"}, "the gateway cannot start: GATEWAY_HOST is 0.0.0.0, which"),
        ({"GATEWAY_KEYS": "/no/such file"}, "the gateway cannot start: .*/no/such file"),
        (
            {"GATEWAY_HOST": "192.0.2.1", "GATEWAY_OPEN": "true"},  # of no machine (RFC 5737)
            r"GATEWAY_PORT: nothing can listen on 192\.0\.2\.1:\d+: .*[Cc]annot assign",
        ),
        (
            {"GATEWAY_METRICS": "http://127.0.0.1:1"},
            "GATEWAY_METRICS is 'http://127.0.0.1:1', but TorchServe is started with http://127.*"
            r" \(config\.properties\); unset GATEWAY_METRICS",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServeError, match=f"^{said}") as raised:
        gateway.check()
    assert "\n" not in str(raised.value)


class Impostor(http.server.BaseHTTPRequestHandler):
    """Answers every request as a gateway would answer `/healthz`."""

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


def test_a_port_that_was_taken_after_the_check_ends_the_start(gateway: Gateway, port: int):
    check = gateway.check()
    with http.server.ThreadingHTTPServer((LOOPBACK, port), Impostor) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        before = psutil.Process().children()
        with pytest.raises(ServeError, match="gateway ended by itself: .*in use") as raised:
            gateway.start(check)
        other.shutdown()
    assert "\n" not in str(raised.value)
    assert psutil.Process().children() == before
    assert not gateway.was_started()


def test_a_process_that_ignores_sigterm_is_killed():
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); input()"
    words = [sys.executable, "-uc", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline()
        process = psutil.Process(stubborn.pid)
        processes.end(process, "program", patience=0.3)
        assert not process.is_running()


@pytest.fixture
def commands(
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Gateway:
    """The commands use the folder of this gateway, and captioners of folders of their own."""
    monkeypatch.setattr(slots, "STATE", gateway.server.folder)
    monkeypatch.setattr(slots, "FEEDBACK", "")
    for module, name in (
        (captioner, "TRAINED"),
        (captioner, "SHIPPED"),
        (slots, "ARCHIVE"),
        (slots, "ARTIFACT"),
    ):
        monkeypatch.setattr(module, name, tmp_path / name.lower() / "clipcap")
    captioner.TRAINED.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors"):
        (captioner.TRAINED / name).write_text("{}")
    return gateway


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["serve", *map(str, words)])
    return serve.main()


def test_one_that_ended_by_itself_is_started_again(
    commands: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # In place of a TorchServe that serves this captioner, the process of this test.
    own, folder = psutil.Process(), commands.server.folder
    monkeypatch.setattr(TorchServe, "process", lambda each: own if each.folder == folder else None)
    asked = {"config": sha256_of(commands.server.config)}
    state = {"served": Captioner.choose().identity() | asked}
    (commands.server.folder / "state.json").write_text(json.dumps(state))
    config = ("--config", commands.server.config)

    def said(*words: str, status: int) -> str:
        assert run(monkeypatch, *words, *config) == status
        out, err = capsys.readouterr()
        assert err.count("\n") == status if words[0] == "start" else not err
        return str(out + err)

    assert "it answers at" in said("start", status=0)
    first = commands.process()
    assert first is not None
    where = f"the gateway runs at {commands.address} (process {first.pid})"
    assert said("start", status=0).endswith(f"already; to end it: make stop\n{where}\n")
    assert f"error: {where}; for TorchServe alone" in said("start", "--no-gateway", status=1)
    monkeypatch.setenv("GATEWAY_MAX_IN_FLIGHT", "3")
    assert f"error: {where}, with other GATEWAY_* settings" in said("start", status=1)
    assert commands.process() == first  # a refusal ends nothing

    first.kill()
    first.wait(10)
    ended = f"{commands.address}: the gateway has ended by itself; to start it: make serve\n"
    assert said("status", status=1).endswith(ended)
    out = said("start", status=0)
    assert re.search(r"the gateway at http.* has ended by itself \(log: .*gateway\.log\)\n", out)
    second = commands.process()
    assert second is not None
    assert second != first
    assert commands.answers()
    assert f"gateway, process {second.pid}, answers\n" in said("status", status=1)  # no worker


def test_a_gateway_without_torchserve_is_seen_and_ended(
    commands: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    process = commands.start(commands.check())
    config = ("--config", commands.server.config)
    assert run(monkeypatch, "idle") == 1
    assert f"error: a gateway runs at {commands.address} (process {process.pid}); end it first" in (
        capsys.readouterr().err
    )
    assert run(monkeypatch, "status", *config) == 1
    assert f"not running\n{commands.address}: gateway, process {process.pid}, answers\n" in (
        capsys.readouterr().out
    )
    # Its own port is free for the next one.
    assert run(monkeypatch, "start", "--checkpoint", "no such folder", *config) == 1
    assert capsys.readouterr().err.startswith("error: no such folder is no checkpoint")
    assert not process.is_running()
    process = commands.start(commands.check())
    assert run(monkeypatch, "stop") == 0
    assert capsys.readouterr().out == "stopped\n"
    assert not process.is_running()


def test_a_gateway_that_cannot_start_stops_serving_before_anything_is_exported(
    commands: Gateway,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def refused() -> str:
        assert run(monkeypatch, "start", "--config", commands.server.config) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return str(err)

    with socket.create_server((LOOPBACK, port)):
        assert refused().startswith(f"error: port {port} is in use")
    monkeypatch.setenv("GATEWAY_PORT", "many")
    assert refused().startswith("error: the gateway cannot start: GATEWAY_PORT is 'many'")


def test_torchserve_is_ended_after_the_gateway_and_with_one_that_cannot_start(
    commands: Gateway,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    seen: list[bool] = []

    def stop(server: TorchServe) -> bool:
        if server.folder == commands.server.folder:
            seen.append(commands.process() is not None)
        return False

    monkeypatch.setattr(TorchServe, "stop", stop)
    commands.start(commands.check())
    assert run(monkeypatch, "stop") == 0
    assert (capsys.readouterr().out, seen) == ("stopped\n", [False])

    # While TorchServe starts, another program takes the gateway's port.
    other = socket.socket()
    monkeypatch.setattr(serve, "build_archive", lambda *_: {})
    monkeypatch.setattr(TorchServe, "start", lambda *_, **__: _listen(other, port))
    with other:
        assert run(monkeypatch, "start", "--config", commands.server.config) == 1
    assert seen == [False, False]
    err = capsys.readouterr().err
    assert re.match(r"error: the gateway ended by itself: .* in use", err)
    assert err.count("\n") == 1


def _listen(other: socket.socket, port: int) -> None:
    # The connections of the gateway that ended may still hold the port for a minute.
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind((LOOPBACK, port))
    other.listen()
