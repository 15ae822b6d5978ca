"""Starting and stopping, as far as no server is needed for it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from filelock import FileLock

from deploy import captioner, processes, serve, slots
from deploy.captioner import Captioner, build_archive
from deploy.errors import ServeError
from deploy.logs import KEPT, rotate
from deploy.ports import check_ports, on_free_ports
from deploy.properties import CONFIG, derived_config, read_properties, sha256_of
from deploy.torchserve import TorchServe
from tests.integration.gateways import free_port

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


def test_an_archive_of_which_the_end_is_missing_is_refused(tmp_path: Path):
    """TorchServe would run without a model, and be waited for in vain."""
    server = server_in(tmp_path)
    with zipfile.ZipFile(server.archive, "w") as archive:
        archive.writestr("captioner.pt", bytes(1000))
    whole = server.archive.read_bytes()
    server.archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ServeError, match="is no archive: not a whole zip file; .*make archive"):
        server.start()
    assert not server.logs.exists()


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
        "[]",
        json.dumps({"pid": 2**22 + 1, "created": 0}),
        json.dumps({"pid": os.getpid(), "created": 0}),
    ],
    ids=["no JSON", "empty", "a list", "no such process", "created later"],
)
def test_another_process_is_never_taken_for_the_server(tmp_path: Path, state: str):
    server = server_in(tmp_path)
    (tmp_path / "state.json").write_text(state)
    assert server.process() is None
    assert server.stop() is False
    assert not (tmp_path / "state.json").exists()


def test_a_process_is_found_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch):
    process = psutil.Process()
    state = {"pid": process.pid, "created": processes.created(process)}
    word = process.cmdline()[0]
    found = processes.find(state, word)
    assert found is not None
    # What Linux says of the start of the machine moves with the clock, and psutil adds it.
    system = psutil._psplatform
    booted = system.boot_time()
    monkeypatch.setattr(system, "boot_time", lambda: booted + 3600)
    assert psutil.Process().create_time() > found.create_time() + 3000
    assert processes.find(state, word) is not None


def test_what_a_killed_server_unpacked_is_removed(tmp_path: Path):
    server = server_in(tmp_path)
    (tmp_path / "left").mkdir()
    state = {"pid": 2**22 + 1, "created": 0, "temporary": str(tmp_path / "left")}
    (tmp_path / "state.json").write_text(json.dumps(state))
    server.stop()
    assert not (tmp_path / "left").exists()


def test_no_workers_while_nobody_answers(tmp_path: Path):
    assert server_in(tmp_path).workers() == []


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands use this folder, and captioners and archives of a folder of their own."""
    monkeypatch.setattr(slots, "STATE", tmp_path / "server")
    monkeypatch.setattr(captioner, "TRAINED", tmp_path / "models" / "clipcap")
    monkeypatch.setattr(captioner, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(slots, "ARCHIVE", tmp_path / "served" / "clipcap.mar")
    monkeypatch.setattr(slots, "ARTIFACT", tmp_path / "artifact")
    monkeypatch.setattr(slots, "FEEDBACK", "")
    monkeypatch.setenv("GATEWAY_PORT", str(free_port()))
    return tmp_path / "server"


def checkpoint_in(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["serve", *map(str, words)])
    return serve.main()


@pytest.mark.usefixtures("state")
def test_the_commands_answer_when_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = server_in(tmp_path).config
    assert run(monkeypatch, "stop") == 0
    assert "no server of this folder is running" in capsys.readouterr().out
    assert run(monkeypatch, "status", "--config", config) == 1
    assert "not running" in capsys.readouterr().out
    assert run(monkeypatch, "idle") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("state")
def test_the_trained_captioner_goes_before_the_shipped_one(tmp_path: Path):
    with pytest.raises(ServeError, match=r"shipped.* has no config\.json.*make train"):
        Captioner.choose()
    shipped = checkpoint_in(tmp_path / "shipped")
    assert Captioner.choose().checkpoint == shipped
    assert "comes with the repository" in Captioner.choose().origin
    trained = checkpoint_in(tmp_path / "models" / "clipcap")
    assert (Captioner.choose().checkpoint, Captioner.choose().origin) == (trained, "trained here")
    (trained / "tokenizer.json").unlink()  # a training that was killed
    assert Captioner.choose().checkpoint == shipped
    given = checkpoint_in(tmp_path / "my captioner")
    assert Captioner.choose(given).checkpoint == given
    with pytest.raises(ServeError, match=r"clipcap is no checkpoint: it has no tokenizer\.json"):
        Captioner.choose(trained)


@pytest.mark.usefixtures("state")
def test_an_archive_is_made_again_when_what_it_is_made_from_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = checkpoint_in(tmp_path / "mine")
    code = tmp_path / "code"
    (code / "model").mkdir(parents=True)
    (code / "model" / "search.py").write_text("1")
    monkeypatch.setattr(captioner, "ROOT", code)
    artifact, archive = tmp_path / "artifact", tmp_path / "served" / "clipcap.mar"
    ran: list[str] = []

    def module(what: str, *_: str | Path) -> None:
        ran.append(what)
        if what == "archiving":
            archive.write_bytes(b"")
        else:
            artifact.mkdir(exist_ok=True)
            (artifact / "captioner.json").write_text('{"weights_sha256": "73f21c1f4879"}')

    def built(precision: str | None = None) -> list[str]:
        ran.clear()
        monkeypatch.setattr(captioner, "run_module", module)
        build_archive(Captioner(checkpoint, precision), artifact, archive)
        return list(ran)

    both = ["exporting", "archiving"]
    assert built() == both
    assert built() == []
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    assert built() == both
    for name in ("evaluation.json", "drafts.safetensors", "quality.safetensors", "quality.json"):
        (checkpoint / name).write_text("{}")
        assert built() == both, name
    (code / "model" / "search.py").write_text("2")
    assert built() == both
    assert built("fp16") == both
    assert built("fp16") == []
    archive.unlink()
    assert built("fp16") == both
    shutil.rmtree(artifact)
    assert built("fp16") == both

    def fails(what: str, *_: str | Path) -> None:
        raise ServeError(what)

    monkeypatch.setattr(captioner, "run_module", fails)
    (checkpoint / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ServeError, match="exporting"):
        build_archive(Captioner(checkpoint), artifact, archive)
    assert built("fp16") == both  # the record of the older archive is gone


def test_only_one_captioner_is_served(
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    trained = checkpoint_in(captioner.TRAINED)
    checkpoint_in(tmp_path / "mine")
    running = psutil.Process()
    monkeypatch.setattr(
        TorchServe, "process", lambda each: running if each.folder == state else None
    )
    config = derived_config(tmp_path / "mine.properties", on_free_ports())
    address = read_properties(config)["inference_address"]
    state.mkdir()
    shutil.copyfile(config, state / "started.properties")
    served = Captioner.choose().identity() | {"config": sha256_of(config)}
    (state / "state.json").write_text(json.dumps({"served": served}))
    up = rf"is served at {address} \(process {running.pid}\)"

    def said(*words: str) -> str:
        assert run(monkeypatch, "start", *words) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    mine = ["--config", str(config), "--no-gateway"]
    assert run(monkeypatch, "start", *mine) == 0
    assert re.match(rf"models/clipcap {up} already", capsys.readouterr().out)
    assert re.match(
        rf"error: models/clipcap {up}, not mine; end it first: make stop",
        said("--checkpoint", "mine", *mine),
    )
    assert re.match(
        rf"error: models/clipcap {up}, not models/clipcap in fp16;",
        said("--precision", "fp16", *mine),
    )
    assert re.match(rf"error: models/clipcap {up}, with another configuration than", said())
    (trained / "model.safetensors").write_bytes(b"trained again")
    assert re.match(rf"error: models/clipcap {up}, as it was before its checkpoint", said(*mine))
    (state / "state.json").unlink()
    assert re.match(rf"error: another captioner {up}, not models/clipcap;", said(*mine))
    assert run(monkeypatch, "idle") == 1
    assert re.match(rf"error: .* {up}; end it first: make stop", capsys.readouterr().err)


def test_two_commands_at_once_are_one_too_many(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with FileLock(f"{state}.lock"):
        for command in ("start", "stop", "idle"):
            assert run(monkeypatch, command) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith("error: another make serve, make swap or make stop is at work")
            assert err.count("\n") == 1
    assert run(monkeypatch, "stop") == 0


@pytest.mark.usefixtures("state")
def test_what_cannot_be_served_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "start", "--sample", tmp_path / "gone.jpg") == 1
    assert "gone.jpg does not exist" in capsys.readouterr().err
    assert run(monkeypatch, "start", "--model", "coco", "--checkpoint", "mine") == 1
    assert "give MODEL=coco or CHECKPOINT=mine, not both" in capsys.readouterr().err
    config = server_in(tmp_path).config
    given = ("--checkpoint", tmp_path / "no such folder", "--config", config)
    assert run(monkeypatch, "start", *given) == 1
    assert "no such folder is no checkpoint" in capsys.readouterr().err


def test_the_sample_comes_with_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", serve.SAMPLE], cwd=serve.ROOT, capture_output=True, check=True
    )
    assert listed.stdout


def test_logs_of_the_last_servers_are_kept(tmp_path: Path):
    logs = tmp_path / "logs"
    for n in range(KEPT + 3):
        rotate(logs)
        assert not list(logs.iterdir())
        (logs / "console.log").write_text(str(n))
    texts = {each.name: (each / "console.log").read_text() for each in tmp_path.iterdir()}
    assert texts == {"logs": "5", "logs.1": "4", "logs.2": "3", "logs.3": "2"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
def test_the_server_of_another_user_is_named_in_one_line():
    words = [sys.executable, "-c", "input()", "org.pytorch.serve.ModelServer"]
    other = subprocess.Popen(words, stdin=subprocess.PIPE)
    # Not in tmp_path, which other users may not read.
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder).chmod(0o755)
            created = processes.created(psutil.Process(other.pid))
            state = Path(folder, "state.json")
            state.write_text(json.dumps({"pid": other.pid, "created": created}))
            said = said_by_stop(Path(folder), user=65534)
            assert f"(process {other.pid}) belongs to the user root; only that user" in said
            assert said.count("\n") == 0
            assert other.poll() is None
            assert state.exists()
        finally:
            other.communicate(b"\n", timeout=10)


def said_by_stop(folder: Path, user: int) -> str:
    """The error of `stop` when this user runs it."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as text:
            said = text.read()
        os.waitpid(child, 0)
        return said
    os.setuid(user)
    try:
        TorchServe(folder, folder / "clipcap.mar").stop()
    except ServeError as error:
        os.write(writer, str(error).encode())
    finally:
        os._exit(0)


def test_a_configuration_without_an_endpoint_names_what_it_lacks(tmp_path: Path):
    config = tmp_path / "mine.properties"
    config.write_text("inference_address=http://127.0.0.1:8080\n")
    with pytest.raises(ServeError, match=r"mine\.properties lacks management_address, metrics_"):
        check_ports(config)


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
def test_an_endpoint_that_names_no_port_is_refused(tmp_path: Path, name: str, value: str):
    config = derived_config(tmp_path / "mine.properties", {**on_free_ports(), name: value})
    with pytest.raises(ServeError, match=rf"mine\.properties: {name} is '{value}'; it must be"):
        check_ports(config)


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@contextlib.contextmanager
def answering(server: TorchServe, workers: Sequence[int]) -> Iterator[None]:
    """At the management endpoint of a server, a program that says these workers are ready."""
    ready = [{"pid": pid, "status": "READY"} for pid in workers]
    described = [{"workers": ready, "minWorkers": 1}]

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 (the library's name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(described).encode())

        def log_message(self, *_: Any) -> None:
            """Not to the terminal."""

    port = int(server.management.rpartition(":")[2])
    with http.server.HTTPServer(("127.0.0.1", port), Answer) as endpoint:
        Thread(target=endpoint.serve_forever, daemon=True).start()
        yield
        endpoint.shutdown()


def test_workers_are_asked_without_the_proxy_that_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server = server_in(tmp_path)
    with answering(server, [os.getpid(), ended]):
        assert server.workers() == [os.getpid()]  # and not the one that has ended


def test_workers_of_another_server_are_not_waited_for(tmp_path: Path):
    server = server_in(tmp_path)
    words = [sys.executable, "-c", "input()"]
    ours, worker = (subprocess.Popen(words, stdin=subprocess.PIPE) for _ in range(2))
    try:
        with answering(server, [worker.pid]):
            server._wait(psutil.Process(), time.monotonic() + 10)  # its child
            with pytest.raises(ServeError, match="1 of 1 workers were ready"):
                server._wait(psutil.Process(ours.pid), time.monotonic() + 0.3)
    finally:
        for each in (ours, worker):
            each.communicate(b"\n", timeout=10)


@pytest.mark.usefixtures("state")
def test_a_port_in_use_stops_serving_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    server = server_in(tmp_path)
    checkpoint_in(captioner.TRAINED)
    with socket.create_server((LOOPBACK, int(server.rest.rpartition(":")[2]))):
        assert run(monkeypatch, "start", "--config", server.config) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: port ")
    assert err.count("\n") == 1
