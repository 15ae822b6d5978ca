"""The clients against servers that say what TorchServe was seen to say; the network is faked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

import client.caption_client
from client import Caption, CaptionClient, CaptionError, ServerTimeout, ServerUnreachable, stubs
from client.__main__ import main

GOOD = {
    "caption": "a boat",
    "confidence": 0.87,
    "captions": [
        {"caption": "a boat", "confidence": 0.87, "log_prob": -0.5, "tokens": 4},
        {"caption": "a ship", "confidence": 0.5, "log_prob": -2.5, "tokens": 4},
    ],
    "model": {"name": "clipcap", "version": "1.0"},
}
BAD = {"error": {"status": 422, "code": "bad_option", "message": "num_beams is 99"}}
BUSY = {
    "code": 503,
    "type": "ServiceUnavailableException",
    "message": 'Model "clipcap" has no worker to serve inference request. Please use scale ...',
}
NO_MODEL = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: clipcap"}


class Script:
    """Replies to give, one a request, and the requests that came."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.requests: list[Any] = []
        self.address = ""

    def next(self) -> Any:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@pytest.fixture
def rest() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.requests.append((self.path, body))
            status, reply = script.next()
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    script.address = f"http://127.0.0.1:{server.server_port}"
    yield script
    server.shutdown()
    server.server_close()


@pytest.fixture
def rpc() -> Iterator[Script]:
    messages, services = stubs.load()
    script = Script()

    class Servicer(services.InferenceAPIsServiceServicer):
        def Predictions(self, request: Any, context: Any) -> Any:  # noqa: N802  (protoc's name)
            script.requests.append(request)
            reply = script.next()
            if isinstance(reply, tuple):
                context.abort(*reply)
            return messages.PredictionResponse(prediction=json.dumps(reply).encode())

    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_InferenceAPIsServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    script.address = f"grpc://127.0.0.1:{port}"
    yield script
    server.stop(None)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.caption_client, "FIRST_PAUSE", 0.001)


def test_rest_gives_typed_results_and_sends_options_as_a_form(rest: Script):
    rest.replies = [(200, GOOD)]
    with CaptionClient(rest.address) as captioner:
        result = captioner.caption(b"JPEG", num_beams=5, length_penalty=0.5)
    assert result.caption == "a boat"
    assert result.confidence == 0.87
    assert result.captions[1] == Caption("a ship", 0.5, -2.5, 4)
    assert (result.model, result.version) == ("clipcap", "1.0")
    assert result.to_dict() == GOOD
    path, body = rest.requests[0]
    assert path == "/predictions/clipcap"
    assert b'name="num_beams"\r\n\r\n5\r\n' in body
    assert b'name="length_penalty"\r\n\r\n0.5\r\n' in body
    assert b'name="data"; filename="picture"' in body


def test_grpc_gives_the_same(rpc: Script):
    rpc.replies = [GOOD]
    with CaptionClient(rpc.address) as captioner:
        assert captioner.caption(b"JPEG", num_beams=5).to_dict() == GOOD
    assert dict(rpc.requests[0].input) == {"data": b"JPEG", "num_beams": b"5"}
    assert rpc.requests[0].model_name == "clipcap"


def test_a_path_is_read(rest: Script, tmp_path: Path):
    rest.replies = [(200, GOOD)]
    (tmp_path / "a.jpg").write_bytes(b"contents")
    with CaptionClient(rest.address) as captioner:
        captioner.caption(tmp_path / "a.jpg")
        captioner.caption(str(tmp_path / "a.jpg"))
    assert all(b"contents" in body for _, body in rest.requests)


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (422, BAD, 422, "bad_option"),
        (413, b"", 413, "request_too_large"),
        (404, NO_MODEL, 404, "model_not_found"),
        (503, BUSY, 503, "overloaded"),
        (
            500,
            {"code": 500, "type": "InternalServerException", "message": "x"},
            500,
            "server_error",
        ),
        (200, b"<html>", 200, "bad_reply"),
        (200, [1], 200, "bad_reply"),
        (200, {"captions": []}, 200, "bad_reply"),
        (200, {"captions": [{"caption": "a"}]}, 200, "bad_reply"),
    ],
)
def test_rest_errors_are_typed(rest: Script, status: int, body: Any, expected: int, code: str):
    rest.replies = [(status, body)]
    with CaptionClient(rest.address, retries=0) as captioner, pytest.raises(CaptionError) as caught:
        captioner.caption(b"JPEG")
    assert (caught.value.status, caught.value.code) == (expected, code)


@pytest.mark.parametrize(
    ("reply", "expected", "code"),
    [
        (BAD, 422, "bad_option"),
        ((grpc.StatusCode.INTERNAL, BUSY["message"]), 503, "overloaded"),
        ((grpc.StatusCode.INTERNAL, "Model not found: clipcap"), 404, "model_not_found"),
        ((grpc.StatusCode.INTERNAL, "boom\nmore"), 500, "server_error"),
        ((grpc.StatusCode.CANCELLED, "RST_STREAM"), 413, "request_too_large"),
        ((grpc.StatusCode.PERMISSION_DENIED, "token"), 403, "forbidden"),
        ((grpc.StatusCode.UNAVAILABLE, "gone"), 0, "unreachable"),
        ((grpc.StatusCode.DEADLINE_EXCEEDED, "late"), 0, "timeout"),
    ],
)
def test_grpc_errors_are_typed(rpc: Script, reply: Any, expected: int, code: str):
    rpc.replies = [reply]
    with CaptionClient(rpc.address, retries=0) as captioner, pytest.raises(CaptionError) as caught:
        captioner.caption(b"JPEG")
    assert (caught.value.status, caught.value.code) == (expected, code)


def test_an_overloaded_server_is_asked_again_and_nothing_else_is(rest: Script):
    rest.replies = [(503, BUSY), (503, BUSY), (200, GOOD)]
    with CaptionClient(rest.address) as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"
        assert len(rest.requests) == 3
        rest.replies = [(422, BAD)]
        with pytest.raises(CaptionError, match="num_beams is 99"):
            captioner.caption(b"JPEG")
    assert len(rest.requests) == 4


def test_retries_come_to_an_end(rest: Script):
    rest.replies = [(503, BUSY)]
    with (
        CaptionClient(rest.address, retries=2) as captioner,
        pytest.raises(CaptionError, match="overloaded"),
    ):
        captioner.caption(b"JPEG")
    assert len(rest.requests) == 3


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_says_how_to_start_a_server(scheme: str):
    with (
        CaptionClient(f"{scheme}://127.0.0.1:9", timeout=5) as captioner,
        pytest.raises(ServerUnreachable, match="make serve"),
    ):
        captioner.caption(b"JPEG")


def test_a_silent_server_times_out():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            CaptionClient(address, timeout=0.1) as captioner,
            pytest.raises(ServerTimeout, match=r"within 0\.1 s"),
        ):
            captioner.caption(b"JPEG")


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://x", "http://", "grpc://"])
def test_an_address_without_a_scheme_is_refused(address: str):
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        CaptionClient(address)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]


def test_the_command_captions_files_in_their_order(
    rest: Script, files: list[str], capsys: pytest.CaptureFixture[str]
):
    rest.replies = [(200, GOOD)]
    assert main(["--address", rest.address, "--num-captions", "2", *files]) == 0
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [f for f in files for _ in "12"]
    assert "a boat  (0.87)" in out
    assert err == ""
    assert b'name="num_captions"\r\n\r\n2\r\n' in rest.requests[0][1]


def test_the_command_goes_on_after_a_bad_file_and_exits_with_1(
    rest: Script, files: list[str], capsys: pytest.CaptureFixture[str]
):
    rest.replies = [(200, GOOD)]
    missing = files[0] + ".gone"
    assert main(["--address", rest.address, "--json", files[0], missing, files[1]]) == 1
    out, _ = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [files[0], missing, files[1]]
    assert lines[0] == {"file": files[0], **GOOD}
    assert lines[1]["error"]["code"] == "unreadable_file"


def test_the_command_prints_one_line_for_an_error(
    rpc: Script, files: list[str], capsys: pytest.CaptureFixture[str]
):
    rpc.replies = [BAD]
    assert main(["--grpc", "--address", rpc.address, "--option", "num_beams=99", files[0]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{files[0]}: num_beams is 99 (bad_option)\n"
    assert rpc.requests[0].input["num_beams"] == b"99"


@pytest.mark.parametrize("option", ["data=x", "picture=x"])
def test_an_option_is_never_taken_for_the_picture(
    rpc: Script, files: list[str], capsys: pytest.CaptureFixture[str], option: str
):
    rpc.replies = [BAD]
    assert main(["--grpc", "--address", rpc.address, "--option", option, files[0]]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: data is" if option == "data=x" else files[0])
    assert all(each.input["data"] == b"a.jpg" for each in rpc.requests)


def test_the_command_refuses_a_wrong_address_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--address", "nowhere", "a.jpg"]) == 1
    assert capsys.readouterr().err.startswith("error: address is 'nowhere'")


@pytest.mark.parametrize(
    "arguments", [["--grpc", "--address", "http://x"], ["--option", "x"], ["--jobs", "0"]]
)
def test_the_command_refuses_flags_that_do_not_fit(arguments: list[str]):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "a.jpg"])
    assert caught.value.code == 2


def test_stubs_are_generated_from_the_installed_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stubs, "FOLDER", tmp_path / "client" / "generated")
    (tmp_path / "client").mkdir()
    folder = stubs.generate()
    assert "service" in (folder / "inference_pb2_grpc.py").read_text()
    assert "from client.generated import" in (folder / "inference_pb2_grpc.py").read_text()
