"""The clients against servers that answer as TorchServe was observed to answer."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

import client.retries
from client import Caption, CaptionClient, CaptionError, ServerTimeout, ServerUnreachable, stubs
from client.__main__ import main
from tests import ROOT

pytestmark = pytest.mark.usefixtures("no_pauses")

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
OPTIONS = {
    "num_beams": {"type": "int", "from": 1, "to": 8, "default": 5, "help": "width of the search"},
    "length_penalty": {"type": "float", "from": -5.0, "to": 5.0, "default": 1.0, "help": "longer"},
    "of_the_future": {"from": 0},
}
BUSY = {
    "code": 503,
    "type": "ServiceUnavailableException",
    "message": 'Model "clipcap" has no worker to serve inference request. Please use scale ...',
}
OVERLOADED = {"error": {"status": 503, "code": "overloaded", "retry_after_seconds": 0.3}}
NO_MODEL = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: clipcap"}


class Script:
    """Replies to give, one a request, and the requests that came."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.retry_after: str | None = None
        self.address = ""
        self.server: Any = None

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
            script.headers.append({name.lower(): text for name, text in self.headers.items()})
            status, reply = script.next()
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            if script.retry_after is not None and status != 200:
                self.send_header("Retry-After", script.retry_after)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            script.requests.append((self.path, b""))
            script.headers.append({name.lower(): text for name, text in self.headers.items()})
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
    script.server = server
    yield script
    server.shutdown()
    server.server_close()


def grpc_server(script: Script) -> grpc.Server:
    """A gRPC server that answers as the script says, without a port."""
    messages, services = stubs.load()

    class Servicer(services.InferenceAPIsServiceServicer):
        def Predictions(self, request: Any, context: Any) -> Any:  # noqa: N802  (protoc's name)
            script.requests.append(request)
            script.headers.append(dict(context.invocation_metadata()))
            reply = script.next()
            if isinstance(reply, tuple):
                context.abort(*reply)
            return messages.PredictionResponse(prediction=json.dumps(reply).encode())

    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_InferenceAPIsServiceServicer_to_server(Servicer(), server)
    return server


@pytest.fixture
def rpc() -> Iterator[Script]:
    script = Script()
    server = grpc_server(script)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    script.address = f"grpc://127.0.0.1:{port}"
    yield script
    server.stop(None)


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


def test_fields_that_a_newer_server_adds_are_ignored(rest: Script):
    newer = [{**each, "language": "en"} for each in GOOD["captions"]]
    rest.replies = [(200, {**GOOD, "captions": newer, "seconds": 0.1})]
    with CaptionClient(rest.address) as captioner:
        assert captioner.caption(b"JPEG").to_dict() == GOOD


def test_warnings_of_a_picture_are_kept_and_shown(
    rest: Script, files: list[str], capsys: pytest.CaptureFixture[str]
):
    rest.replies = [(200, {**GOOD, "warnings": ["truncated"]})]
    with CaptionClient(rest.address) as captioner:
        result = captioner.caption(b"JPEG")
    assert result.warnings == ("truncated",)
    assert result.to_dict()["warnings"] == ["truncated"]
    assert main(["--address", rest.address, files[0]]) == 0
    assert capsys.readouterr().err == f"{files[0]}: warning: truncated\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def with_tls(rest: Script, certificate: tuple[Path, Path]) -> str:
    """Make the server speak TLS; returns its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    rest.server.socket = context.wrap_socket(rest.server.socket, server_side=True)
    return rest.address.replace("http:", "https:")


def test_https_trusts_the_authorities_of_the_environment_and_uses_no_proxy(
    rest: Script, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    rest.replies = [(200, GOOD)]
    address = with_tls(rest, certificate)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with CaptionClient(address) as captioner, pytest.raises(ServerUnreachable, match="certificate"):
        captioner.caption(b"JPEG")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with CaptionClient(address) as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"


def test_https_trusts_the_authorities_of_a_file(rest: Script, certificate: tuple[Path, Path]):
    rest.replies = [(200, GOOD)]
    with CaptionClient(with_tls(rest, certificate), ca_file=certificate[0]) as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"


def test_grpcs_trusts_the_authorities_of_a_file_or_of_the_environment(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    script = Script()
    script.replies = [GOOD]
    file, key = certificate
    server = grpc_server(script)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), file.read_bytes())])
    address = f"grpcs://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        with (
            CaptionClient(address, retries=0) as captioner,
            pytest.raises(ServerUnreachable, match=address),
        ):
            captioner.caption(b"JPEG")
        with CaptionClient(address, ca_file=file, token="of-mine") as captioner:
            assert captioner.caption(b"JPEG").caption == "a boat"
        assert script.headers[0]["authorization"] == "Bearer of-mine"
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with CaptionClient(address) as captioner:
            assert captioner.caption(b"JPEG").caption == "a boat"
    finally:
        server.stop(None)


@pytest.mark.parametrize("transport", ["rest", "rpc"])
def test_headers_and_a_token_go_with_every_request(transport: str, request: pytest.FixtureRequest):
    script = request.getfixturevalue(transport)
    script.replies = [(200, GOOD)] if transport == "rest" else [GOOD]
    headers = {"X-Tenant": "boats and birds"}
    with CaptionClient(script.address, headers=headers, token="of-mine") as captioner:
        captioner.caption(b"JPEG")
        captioner.caption(b"JPEG")
    for sent in script.headers:
        assert sent["x-tenant"] == "boats and birds"
        assert sent["authorization"] == "Bearer of-mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"headers": {"X Tenant": "a"}}, "header name 'X Tenant' cannot be sent"),
        ({"headers": {"": "a"}}, "header name '' cannot be sent"),
        ({"headers": {"X": "secret\r\nY: b"}}, "the value of header X cannot be sent"),
        ({"headers": {"X": "secret\u00e9"}}, "the value of header X cannot be sent"),
        ({"headers": {"X": ""}}, "the value of header X cannot be sent"),
        ({"token": "secret secret"}, "the token cannot be sent"),
        ({"token": ""}, "the token cannot be sent"),
        ({"token": "secret", "headers": {"Authorization": "Basic secret"}}, "give one"),
        ({"ca_file": Path(__file__)}, "test_client.py holds no certificate"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_shown(arguments: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said) as caught:
        CaptionClient(**arguments)
    assert "secret" not in str(caught.value)


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
        (200, {"captions": ["a boat"], "model": GOOD["model"]}, 200, "bad_reply"),
        (200, {**GOOD, "captions": [{**GOOD["captions"][0], "log_prob": "?"}]}, 200, "bad_reply"),
        (200, {**GOOD, "model": "clipcap"}, 200, "bad_reply"),
        (422, {"error": "num_beams is 99", "detail": BAD["error"]}, 422, "bad_option"),
        (500, {"error": "a gateway's text"}, 500, "bad_reply"),
        (429, {"error": {"status": "many", "code": "slow_down"}}, 429, "slow_down"),
        (200, {"error": {"status": None, "code": "odd"}}, 500, "odd"),
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
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "too large"), 413, "request_too_large"),
        ((grpc.StatusCode.CANCELLED, "Channel closed!"), 0, "cancelled"),
        ({"error": {"status": "many", "code": "odd"}}, 500, "odd"),
        ({"error": {"status": "UNAVAILABLE"}}, 500, "unknown"),
        (OVERLOADED, 503, "overloaded"),
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


#: What TorchServe answers when a batch made the handler raise, or ended the worker.
FAILED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
DIED = {"code": 500, "type": "InternalServerException", "message": "Worker died."}


@pytest.mark.parametrize("reply", [(503, FAILED), (500, DIED), (503, b"<html>"), (502, b"")])
def test_a_request_that_may_have_made_the_server_fail_is_not_sent_again(rest: Script, reply: Any):
    rest.replies = [reply]
    with CaptionClient(rest.address) as captioner, pytest.raises(CaptionError):
        captioner.caption(b"JPEG")
    assert len(rest.requests) == 1


@pytest.mark.parametrize("details", [FAILED["message"], DIED["message"]])
def test_it_is_not_sent_again_over_grpc_either(rpc: Script, details: str):
    rpc.replies = [(grpc.StatusCode.INTERNAL, details)]
    with CaptionClient(rpc.address) as captioner, pytest.raises(CaptionError, match=details):
        captioner.caption(b"JPEG")
    assert len(rpc.requests) == 1


@pytest.mark.parametrize("transport", ["rest", "rpc"])
def test_an_overloaded_server_is_asked_again_when_it_says(
    transport: str, request: pytest.FixtureRequest
):
    script = request.getfixturevalue(transport)
    replies: list[Any] = [(503, OVERLOADED), (200, GOOD)]
    script.replies = replies if transport == "rest" else [OVERLOADED, GOOD]
    begin = time.monotonic()
    with CaptionClient(script.address) as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"
    assert time.monotonic() - begin >= 0.3
    assert len(script.requests) == 2


@pytest.mark.parametrize("header", ["0.3", " 0.3 "])
def test_a_gateway_that_says_when_is_asked_again(rest: Script, header: str):
    rest.replies, rest.retry_after = [(503, b"<html>busy"), (200, GOOD)], header
    begin = time.monotonic()
    with CaptionClient(rest.address) as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"
    assert time.monotonic() - begin >= 0.3


@pytest.mark.parametrize("header", ["soon", "nan", "-1", "inf", "Sun, 99 Nov 1994 08:49:37 GMT"])
def test_a_gateway_that_does_not_say_when_is_not_asked_again(rest: Script, header: str):
    rest.replies, rest.retry_after = [(503, b"<html>busy")], header
    with CaptionClient(rest.address) as captioner, pytest.raises(CaptionError) as caught:
        captioner.caption(b"JPEG")
    assert caught.value.retry_after_seconds is None
    assert len(rest.requests) == 1


def test_nobody_waits_longer_than_for_an_answer(rest: Script):
    rest.replies, rest.retry_after = [(503, BUSY)], "20"
    with CaptionClient(rest.address, timeout=10) as captioner:
        with pytest.raises(CaptionError, match="overloaded") as caught:
            captioner.caption(b"JPEG")
        assert caught.value.retry_after_seconds == 20
        assert len(rest.requests) == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_started_again_is_waited_for(
    scheme: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = Script()
    script.replies = [GOOD]
    started: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(GOOD).encode())

        def log_message(self, *_: Any) -> None:
            pass

    def start() -> None:
        if scheme == "http":
            server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            request.addfinalizer(server.server_close)
            request.addfinalizer(server.shutdown)
            started.append(server)
        else:
            server = grpc_server(script)
            server.add_insecure_port(f"127.0.0.1:{port}")
            server.start()
            request.addfinalizer(lambda: server.stop(None))
            started.append(server)

    monkeypatch.setattr(client.retries, "FIRST_PAUSE", 0.3)
    threading.Timer(0.1, start).start()
    with CaptionClient(f"{scheme}://127.0.0.1:{port}") as captioner:
        assert captioner.caption(b"JPEG").caption == "a boat"
    assert started


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
    ("arguments", "said"),
    [
        (["--grpc", "--address", "http://x", "a.jpg"], "--grpc needs an address grpc://HOST:PORT"),
        (["--option", "x", "a.jpg"], "--option takes NAME=VALUE, not 'x'"),
        (["--header", "x", "a.jpg"], "--header takes NAME=VALUE"),
        (["--jobs", "0", "a.jpg"], "'0' is not a whole number from 1 to 64"),
        (["--jobs", "abc", "a.jpg"], "'abc' is not a whole number from 1 to 64"),
        (["--timeout", "nan", "a.jpg"], "'nan' is not a number of seconds above 0"),
        (["--timeout", "soon", "a.jpg"], "'soon' is not a number of seconds above 0"),
        (["a.jpg", "--num-beams"], "--num-beams needs a value"),
        (["a.jpg", "--num-beams", "--json"], "--num-beams needs a value"),
        ([], "no FILE is given"),
    ],
)
def test_the_command_refuses_flags_that_do_not_fit(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "_jobs" not in shown


def test_a_flag_without_a_value_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["a.jpg", "--num-beams"])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_command_sends_headers_and_the_token_of_a_file_or_of_the_environment(
    rest: Script, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rest.replies = [(200, GOOD)]
    (tmp_path / "token").write_text("of-a-file\n")
    words = ["--address", rest.address, "--header", "X-Tenant=a=b", files[0]]
    assert main([*words, "--token-file", str(tmp_path / "token")]) == 0
    monkeypatch.setenv("CLIPCAP_TOKEN", "of-the-environment")
    assert main(words) == 0
    assert main([*words, "--token-file", str(tmp_path / "token")]) == 0
    assert [sent["authorization"] for sent in rest.headers] == [
        "Bearer of-a-file",
        "Bearer of-the-environment",
        "Bearer of-a-file",
    ]
    assert {sent["x-tenant"] for sent in rest.headers} == {"a=b"}
    rest.replies = [(200, [{"customizedMetadata": {"options": OPTIONS}}])]
    assert main(["--options", "--management", rest.address, "--header", "X-Tenant=c"]) == 0
    assert rest.headers[-1]["x-tenant"] == "c"
    assert rest.headers[-1]["authorization"] == "Bearer of-the-environment"


def test_the_command_trusts_the_authorities_of_a_file(
    rest: Script, files: list[str], certificate: tuple[Path, Path]
):
    rest.replies = [(200, GOOD)]
    address = with_tls(rest, certificate)
    assert main(["--address", address, "--ca-file", str(certificate[0]), files[0]]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ca-file", "/nowhere/ca.pem"], "No such file or directory: '/nowhere/ca.pem'"),
        (["--token-file", "/nowhere/token"], "No such file or directory: '/nowhere/token'"),
        (["--token-file", __file__], "the token cannot be sent"),
        (["--header", "X Y=1"], "header name 'X Y' cannot be sent"),
    ],
)
def test_the_command_refuses_what_cannot_be_sent_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*arguments, "a.jpg"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert len(shown.splitlines()) == 1


def test_any_other_flag_is_an_option_of_the_server(rpc: Script, files: list[str]):
    rpc.replies = [GOOD]
    flags = ["--of-the-future", "x", "--num-beams=3", "--length-penalty", "-1.5"]
    assert main(["--grpc", "--address", rpc.address, *flags, files[0], "--jobs", "1"]) == 0
    options = dict(rpc.requests[0].input)
    assert options.pop("data") == b"a.jpg"
    assert options == {"of_the_future": b"x", "num_beams": b"3", "length_penalty": b"-1.5"}


def test_after_two_dashes_only_files_follow(
    rest: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rest.replies = [(200, GOOD)]
    (tmp_path / "--odd.jpg").write_bytes(b"odd")
    monkeypatch.chdir(tmp_path)
    assert main(["--address", rest.address, "--", "--odd.jpg"]) == 0


def test_an_answer_of_nonsense_does_not_end_the_command(
    rest: Script, files: list[str], capsys: pytest.CaptureFixture[str]
):
    rest.replies = [(400, {"error": {"status": "four hundred", "code": "x", "message": "y"}})]
    rest.replies += [(200, GOOD)]
    assert main(["--address", rest.address, "--jobs", "1", *files]) == 1
    out, err = capsys.readouterr()
    assert err == f"{files[0]}: y (x)\n"
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        f for f in files[1:] for _ in "12"
    ]


def test_the_command_prints_the_options_of_the_server(
    rest: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    rest.replies = [(200, [{"modelName": "clipcap", "customizedMetadata": {"options": OPTIONS}}])]
    assert main(["--options", "--management", rest.address]) == 0
    assert rest.requests == [("/models/clipcap?customized=true", b"")]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if "--" in line] == [
        "--num-beams whole number 1 8 5 width of the search",
        "--length-penalty number -5 5 1 longer",
        "--of-the-future 0",
    ]
    assert main(["--options", "--json", "--management", rest.address]) == 0
    assert json.loads(capsys.readouterr().out) == OPTIONS


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, NO_MODEL, "Model not found: clipcap (404 model_not_found)"),
        (200, [{"modelName": "other"}], "not the reply of a captioner"),
        (200, [], "not the reply of a captioner"),
        (200, b"<html>", "not the reply of a captioner"),
    ],
)
def test_a_server_without_options_is_reported_in_one_line(
    rest: Script, capsys: pytest.CaptureFixture[str], status: int, body: Any, said: str
):
    rest.replies = [(status, body)]
    assert main(["--options", "--management", rest.address]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert len(shown.splitlines()) == 1


def test_options_of_no_server_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--options", "--management", "http://127.0.0.1:9"]) == 1
    assert "no captioner answers at http://127.0.0.1:9" in capsys.readouterr().err


def test_stubs_are_generated_from_the_installed_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stubs, "FOLDER", tmp_path / "client" / "generated")
    (tmp_path / "client").mkdir()
    folder = stubs.generate()
    assert stubs.unusable_reason() is None
    assert "service" in (folder / "inference_pb2_grpc.py").read_text()
    assert "from client.generated import" in (folder / "inference_pb2_grpc.py").read_text()


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the versions that the stubs were made with, in a folder of its own."""
    folder = tmp_path / "client" / "generated"
    folder.mkdir(parents=True)
    monkeypatch.setattr(stubs, "FOLDER", folder)
    file = folder / "versions.json"
    file.write_text((ROOT / "client" / "generated" / "versions.json").read_text())
    return file


def test_stubs_of_another_version_are_refused_in_one_line(
    recorded: Path, files: list[str], capsys: pytest.CaptureFixture[str]
):
    versions = json.loads(recorded.read_text())
    assert set(versions) == {"torchserve", "grpcio", "grpcio-tools", "protobuf"}
    installed = versions["protobuf"]
    recorded.write_text(json.dumps({**versions, "protobuf": "4.0.0"}))
    assert main(["--grpc", files[0]]) == 1
    assert capsys.readouterr().err == (
        f"error: the gRPC stubs were made with protobuf 4.0.0, but {installed} is installed; "
        "make them: python -m client.stubs\n"
    )


@pytest.mark.parametrize("content", [None, "", "{"])
def test_missing_stubs_are_reported_in_one_line(
    recorded: Path, files: list[str], capsys: pytest.CaptureFixture[str], content: str | None
):
    recorded.unlink()
    if content is not None:
        recorded.write_text(content)
    assert main(["--grpc", files[0]]) == 1
    assert capsys.readouterr().err == (
        "error: the gRPC stubs are missing; make them: python -m client.stubs\n"
    )


def test_stubs_are_made_again_only_when_a_version_changes(
    recorded: Path, capsys: pytest.CaptureFixture[str]
):
    versions = recorded.read_text()
    assert stubs.main() == 0
    assert capsys.readouterr().out == ""
    assert not (recorded.parent / "inference_pb2.py").exists()
    recorded.write_text(versions.replace("protobuf", "protobug"))
    assert stubs.main() == 0
    assert "made with protobuf None" in capsys.readouterr().out
    assert (recorded.parent / "inference_pb2.py").exists()
    assert recorded.read_text() == versions


def test_checking_the_stubs_imports_neither_grpc_nor_httpx():
    code = (
        "import sys, client.stubs\n"
        "assert client.stubs.main() == 0\n"
        "print(*sorted({'grpc', 'grpc_tools', 'httpx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
