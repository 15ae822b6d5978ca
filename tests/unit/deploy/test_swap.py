"""The parts of `make swap` that need no TorchServe: refusals, ports, golden pictures, leftovers."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from PIL import Image, ImageStat

from deploy import golden, slots, swap
from deploy.errors import ServeError
from deploy.ports import beside, on_free_ports
from deploy.properties import CONFIG, derived_config, ports, read_properties
from deploy.torchserve import TorchServe
from model.image.decode import load_image

LOOPBACK = "127.0.0.1"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the servers."""
    monkeypatch.setattr(slots, "STATE", tmp_path / "server")
    monkeypatch.setattr(slots, "ARCHIVE", tmp_path / "served" / "clipcap.mar")
    monkeypatch.setattr(slots, "ARTIFACT", tmp_path / "artifact")
    monkeypatch.setattr("sys.argv", ["swap"])
    return tmp_path / "server"


def test_without_a_gateway_nothing_is_swapped(state: Path, capsys: pytest.CaptureFixture[str]):
    assert swap.main() == 1
    said = "error: no gateway runs, so there is nothing to swap; start: make serve\n"
    assert capsys.readouterr() == ("", said)


def test_two_swaps_at_once_are_one_too_many(state: Path, capsys: pytest.CaptureFixture[str]):
    with FileLock(f"{state}.lock"):
        assert slots.is_at_work()
        assert swap.main() == 1
    assert not slots.is_at_work()
    assert "error: another make serve, make swap or make stop is at work" in capsys.readouterr().err


def test_the_slots_share_nothing(state: Path):
    first, second = slots.slots()
    for one, other in (
        (first.server.folder, second.server.folder),
        (first.server.archive, second.server.archive),
        (first.artifact, second.artifact),
    ):
        assert one != other
    assert second.artifact.parent == first.artifact.parent  # not in a folder that is replaced
    assert second.server.logs != first.server.logs


def test_what_a_server_that_ended_by_itself_has_left_does_not_count(state: Path, tmp_path: Path):
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    for slot in slots.slots():
        slot.server.folder.mkdir(parents=True)
        shutil.copyfile(config, slot.server.folder / "started.properties")
        left = {"pid": 2**22 + 1, "created": 0, "temporary": str(tmp_path / "none")}
        (slot.server.folder / "state.json").write_text(json.dumps(left))
    slot, other = slots.settle(CONFIG)
    assert (slot.server.folder, slot.server.config) == (state, CONFIG)
    assert other.server.config == CONFIG
    assert not (other.server.folder / "state.json").exists()


def test_a_server_beside_another_takes_the_next_free_ports(tmp_path: Path):
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    given = ports(config)
    assert beside(config) == {name: read_properties(config)[name] for name in given}
    with contextlib.ExitStack() as taken:
        for name in ("inference_address", "grpc_inference_port"):
            taken.enter_context(socket.create_server((LOOPBACK, given[name])))
        found = ports(derived_config(tmp_path / "beside.properties", beside(config), config))
    in_use = {given["inference_address"], given["grpc_inference_port"]}
    assert len({*found.values(), *in_use}) == len(found) + len(in_use)
    assert all(found[name] >= given[name] for name in given)
    assert read_properties(tmp_path / "beside.properties")["inference_address"] == (
        f"http://{LOOPBACK}:{found['inference_address']}"
    )


def test_there_is_no_port_above_the_last(tmp_path: Path):
    changes = {**on_free_ports(), "metrics_address": f"http://{LOOPBACK}:65535"}
    config = derived_config(tmp_path / "config.properties", changes)
    with (
        socket.create_server((LOOPBACK, 65535)),
        pytest.raises(ServeError, match="no port from metrics_address=65535 on is free"),
    ):
        beside(config)


def test_a_server_whose_start_was_killed_is_found_by_its_folder(tmp_path: Path):
    server = TorchServe(tmp_path, tmp_path / "clipcap.mar")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "state.json").write_text(json.dumps({"temporary": str(temporary), "served": {}}))
    assert server.process() is None  # no process is written down yet
    code = "print(flush=True); input()"
    words = [sys.executable, "-c", code, f"-Djava.io.tmpdir={temporary}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launched:
        assert launched.stdout
        launched.stdout.readline()  # it runs
        (temporary / ".model_server.pid").write_text(str(psutil.Process().pid))
        assert server.process() is None  # another program has the number
        (temporary / ".model_server.pid").write_text(str(launched.pid))
        assert server.process() == psutil.Process(launched.pid)
        assert server.stop()
    assert not temporary.exists()
    assert server.process() is None


@contextlib.contextmanager
def answering(server: TorchServe, *replies: tuple[int, dict[str, Any]]) -> Iterator[None]:
    """At the address of a server's captions, a program with these replies, one after another."""
    waiting = list(replies)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 (the library's name)
            self.rfile.read(int(self.headers["Content-Length"]))
            status, reply = waiting.pop(0)
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Not to the terminal."""

    port = int(server.rest.rpartition(":")[2])
    with http.server.HTTPServer((LOOPBACK, port), Answer) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        yield
        endpoint.shutdown()


def reply(caption: str, log_prob: float) -> tuple[int, dict[str, Any]]:
    best = {"caption": caption, "confidence": 0.5, "log_prob": log_prob, "tokens": 4}
    return 200, {"captions": [best], "model": {"name": "clipcap", "version": "1.0"}}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply("a red boat", -2.0039), None),
        (reply("a red boat", -2.0041), r"otherwise .* 'a red boat' \(-2\.0041 nats\), expected"),
        (reply("a red boat", float("nan")), "otherwise than its artifact does"),
        (reply("a blue boat", -2.0), r"'a blue boat' .*, expected 'a red boat' \(-2\.0000\)"),
        (
            (504, {"error": {"status": 504, "code": "deadline", "message": "too late"}}),
            "does not caption deploy/golden/grey.webp: .*too late",
        ),
    ],
)
def test_captions_must_be_those_of_the_artifact(
    tmp_path: Path, answer: tuple[int, dict[str, Any]], said: str | None
):
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    server = TorchServe(tmp_path, tmp_path / "clipcap.mar", config)
    expected = [{"caption": "a red boat", "log_prob": -2.0, "tokens": 4}] * len(golden.PICTURES)
    sound = reply("a red boat", -2.0)
    with answering(server, sound, answer, *[sound] * (len(golden.PICTURES) - 2)):
        if said is None:
            golden.compare(server, expected)
        else:
            with pytest.raises(ServeError, match=said) as raised:
                golden.compare(server, expected)
            assert "\n" not in str(raised.value)


def test_the_golden_pictures_differ_in_what_may_go_wrong_with_them():
    images = {file.name: Image.open(file) for file in golden.PICTURES}
    assert set(images) == {"sample.jpg", "grey.webp", "large.jpg", "transparent.png", "turned.jpg"}
    assert images["turned.jpg"].getexif()[0x0112] == 6
    assert images["transparent.png"].mode == "P"
    assert "transparency" in images["transparent.png"].info
    for file in golden.PICTURES:
        upright = load_image(file.read_bytes())
        assert upright.width != upright.height
        reduced = load_image(file.read_bytes(), side=128)
        assert (reduced.size < upright.size) == (file.name == "large.jpg")
    grey = ImageStat.Stat(images["grey.webp"].convert("HSV")).mean
    assert grey[1] < 10  # saturation, of 255
