"""The request forms, batching, metrics and commands against a real TorchServe.

What programs send to `/predictions` is sent to the gateway in front of it too.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from client import CaptionClient, CaptionError, stubs
from client.__main__ import main
from deploy.errors import ServeError
from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from handler.measures import COUNTERS
from tests.integration.gateways import running, settings_for
from tests.integration.scrape import metrics_of, value_of
from tests.pictures import encoded, sound

PNG = sound()["png"]
TEXT = base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "photo.png"
    file.write_bytes(PNG)
    return file


@pytest.fixture(scope="module")
def expected(server: TorchServe) -> dict[str, Any]:
    """The reply to the picture with default options."""
    with CaptionClient(server.rest) as client:
        return client.caption(PNG).to_dict()


def curl(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a reply, asked for as a person would."""
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


@pytest.mark.parametrize(
    "how",
    [
        ["-T", "{}"],
        ["--data-binary", "@{}", "-H", "Content-Type: image/png"],
        ["--data-binary", "@{}", "-H", "Content-Type: application/json"],
        ["--data-binary", "@{}", "-H", "Content-Type: text/plain"],
        ["--data-binary", "@{}", "-H", "Content-Type:"],
        ["-F", "data=@{}"],
        ["-F", "image=@{};type=image/png"],
        ["-X", "PUT", "-F", "file=@{}"],
    ],
)
def test_however_curl_sends_it(address: str, photo: Path, expected: dict[str, Any], how: list[str]):
    words = [word.replace("{}", str(photo)) for word in how]
    for path in ("clipcap", "clipcap/1.0"):
        assert curl(*words, f"{address}/predictions/{path}") == (200, expected)


def test_what_curl_calls_a_form_by_itself_is_explained(server: TorchServe, photo: Path):
    status, body = curl("--data-binary", f"@{photo}", f"{server.rest}/predictions/clipcap")
    # TorchServe reads such a body as a form before the handler sees it, and may fail at that.
    assert status in (400, 500)
    if status == 400:
        assert "-T photo.jpg" in body["error"]["message"]


def test_the_gateway_takes_what_curl_calls_a_form_for_the_picture_that_it_is(
    gateway: str, photo: Path, expected: dict[str, Any]
):
    sent = ["--data-binary", f"@{photo}"]
    assert curl(*sent, f"{gateway}/predictions/clipcap") == (200, expected)


def test_options_in_a_form(address: str, photo: Path):
    fields = ["-F", f"data=@{photo}", "-F", "num_beams=4", "-F", "num_captions=3"]
    status, body = curl(*fields, f"{address}/predictions/clipcap")
    assert (status, len(body["captions"])) == (200, 3)


@pytest.mark.parametrize(
    "route", ["clipcap/predict?", "models/clipcap/invoke?", "invocations?model_name=clipcap&"]
)
def test_options_in_a_query_on_the_routes_that_pass_them_on(
    server: TorchServe, photo: Path, route: str
):
    status, body = curl("-T", photo, f"{server.rest}/{route}num_beams=4&num_captions=3")
    assert (status, len(body["captions"])) == (200, 3)
    status, body = curl("-T", photo, f"{server.rest}/{route}num_beams=99")
    assert (status, body["error"]["code"]) == (422, "bad_option")


def test_torchserve_drops_the_query_of_predictions(
    server: TorchServe, photo: Path, expected: dict[str, Any]
):
    # Not our wish: the day this fails, the README may say that queries work everywhere.
    query = f"{server.rest}/predictions/clipcap?num_captions=3"
    assert curl("-T", photo, query) == (200, expected)


def test_the_gateway_passes_the_query_of_predictions_on(gateway: str, photo: Path):
    predictions = f"{gateway}/predictions/clipcap"
    for how in (["-T", photo], ["-F", f"data=@{photo}"], ["-d", json.dumps({"image": TEXT})]):
        status, body = curl(*how, f"{predictions}?num_beams=4&num_captions=3")
        assert (status, len(body["captions"])) == (200, 3)
    status, body = curl("-T", photo, f"{predictions}?num_beams=99")
    assert (status, body["error"]["code"]) == (422, "bad_option")
    status, body = curl("-T", photo, f"{predictions}?beams=1")
    assert (status, body["error"]["code"]) == (400, "unknown_option")


def test_options_in_json(address: str, expected: dict[str, Any]):
    predictions = f"{address}/predictions/clipcap"
    assert httpx.post(predictions, json={"image": TEXT}).json() == expected
    options = {"num_beams": 4, "num_captions": 3}
    reply = httpx.post(predictions, json={"image": TEXT, "options": options})
    assert len(reply.json()["captions"]) == 3


def test_a_document_in_a_form(address: str, expected: dict[str, Any]):
    document = json.dumps({"image": TEXT}).encode()
    reply = httpx.post(f"{address}/predictions/clipcap", files={"data": document})
    assert reply.json() == expected


def test_kserve_s_documents_on_the_route_of_predictions(address: str, server: TorchServe):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [TEXT, TEXT]}
    options = {"num_captions": 2}
    for path, document in (
        ("v1/models/clipcap:predict", {"instances": [{"data": TEXT}, TEXT], "parameters": options}),
        ("v2/models/clipcap/infer", {"id": "7", "inputs": [tensor], "parameters": options}),
    ):
        own = httpx.post(f"{server.rest}/{path}", json=document)
        reply = httpx.post(f"{address}/predictions/clipcap", json=document)
        assert (reply.status_code, list(reply.json())) == (200, list(own.json()))
        if "predictions" in own.json():
            assert reply.json() == own.json()
            continue
        assert reply.json()["id"] == "7"
        pairs = zip(reply.json()["outputs"], own.json()["outputs"], strict=True)
        for found, wanted in pairs:  # the gateway's numbers have six decimals
            assert (found["name"], found["shape"]) == (wanted["name"], wanted["shape"])
            exact = found["datatype"] != "FP32"
            data = wanted["data"] if exact else pytest.approx(wanted["data"], abs=1e-6)
            assert found["data"] == data


def test_kserve_s_binary_tensors_on_the_route_of_predictions(
    address: str, expected: dict[str, Any]
):
    binary = len(PNG).to_bytes(4, "little") + PNG
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    tensor["parameters"] = {"binary_data_size": len(binary)}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    reply = httpx.post(f"{address}/predictions/clipcap", content=text + binary, headers=headers)
    assert reply.json()["outputs"][0]["data"] == [expected["caption"]]
    headers["Inference-Header-Content-Length"] = "x"
    reply = httpx.post(f"{address}/predictions/clipcap", content=text + binary, headers=headers)
    assert reply.status_code == 400
    assert isinstance(reply.json()["error"], str)
    assert reply.json()["detail"]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing", "model_not_found"), ("clipcap/9.0", "version_not_found")],
)
def test_a_model_that_is_not_served_is_404(address: str, path: str, code: str):
    with CaptionClient(address, model=path) as client, pytest.raises(CaptionError) as caught:
        client.caption(PNG)
    assert (caught.value.status, caught.value.code) == (404, code)


def test_kserve_v1(server: TorchServe, expected: dict[str, Any]):
    document = {"instances": [{"data": TEXT}, {"data": TEXT}]}
    reply = httpx.post(f"{server.rest}/v1/models/clipcap:predict", json=document)
    assert reply.status_code == 200
    predictions = reply.json()["predictions"]
    assert [each["caption"] for each in predictions] == [expected["caption"]] * 2


def test_kserve_v2(server: TorchServe, expected: dict[str, Any]):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [TEXT, TEXT]}
    document = {"id": "42", "inputs": [tensor], "parameters": {"num_captions": 2}}
    reply = httpx.post(f"{server.rest}/v2/models/clipcap/infer", json=document).json()
    assert (reply["model_name"], reply["id"]) == ("clipcap", "42")
    outputs = {output["name"]: output for output in reply["outputs"]}
    assert outputs["caption"]["shape"] == [2, 2]
    assert outputs["caption"]["data"][0] == expected["caption"]
    assert set(outputs) == {"caption", "confidence", "log_prob", "tokens", "finish_reason"}


def test_kserve_v2_with_binary_tensors_as_its_clients_send_them(
    server: TorchServe, expected: dict[str, Any]
):
    binary = (len(PNG).to_bytes(4, "little") + PNG) * 2
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2]}
    tensor["parameters"] = {"binary_data_size": len(binary)}
    address = f"{server.rest}/v2/models/clipcap/infer"
    for parameters, status in (({"binary_data_output": True}, 200), ({"beams": 2}, 400)):
        text = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        reply = httpx.post(address, content=text + binary, headers=headers)
        assert reply.status_code == status
        if status == 200:
            (captions,) = (each for each in reply.json()["outputs"] if each["name"] == "caption")
            assert captions["data"] == [expected["caption"]] * 2
        else:
            assert reply.json()["error"].startswith("unknown option 'beams'")
            assert reply.json()["detail"]["code"] == "unknown_option"


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 20 kB."""
    file = tmp_path_factory.mktemp("photos") / f"{'あ' * 80}.jpg"
    file.write_bytes(encoded(Image.effect_noise((200, 200), 50).convert("RGB"), "JPEG"))
    return file


@pytest.mark.parametrize(
    "how",
    [
        ["-F", "data=@{}", "-F", "data=@{}"],
        ["-F", "data=@{},{}"],
        ["-F", "data=@{}", "-F", "num_beams=2", "-F", "data=@{}"],
        ["-F", "data=@{}", "-F", "data=@{}", "-H", "Transfer-Encoding: chunked"],
    ],
)
def test_no_picture_of_a_form_of_two_is_lost(
    address: str, server: TorchServe, noise: Path, how: list[str]
):
    words = [word.replace("{}", str(noise)) for word in how]
    status, body = curl(*words, f"{address}/predictions/clipcap")
    nested = "data=@{},{}" in how  # to the gateway, a form within a form is a file
    if address != server.rest and not nested:
        assert (status, body["succeeded"]) == (200, 2)
        return
    code = "image_undecodable" if address != server.rest else "bad_request"
    assert (status, body["error"]["code"]) == (400, code)
    assert nested or "only the last arrives" in body["error"]["message"]


@pytest.mark.parametrize(
    "how",
    [
        ["-F", "data=@{}"],
        ["-F", "data=@{}", "-F", "num_beams=2", "-F", "num_captions=2"],
        ["-F", "data=@{}", "-H", "Transfer-Encoding: chunked"],
        ["-F", "data=@{};type=image/jpeg;filename=" + 250 * "x"],
    ],
)
def test_a_form_of_one_picture_is_captioned(address: str, noise: Path, how: list[str]):
    words = [word.replace("{}", str(noise)) for word in how]
    status, body = curl(*words, f"{address}/predictions/clipcap")
    assert (status, "caption" in body) == (200, True)


def test_a_get_without_a_picture_is_refused(server: TorchServe):
    reply = httpx.get(f"{server.rest}/predictions/clipcap")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "empty")


def test_no_picture_is_refused(address: str):
    predictions = f"{address}/predictions/clipcap"
    reply = httpx.post(predictions)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "empty")
    reply = httpx.post(predictions, files={"num_beams": (None, "2")})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "no_image")


def test_the_gateway_refuses_a_form_that_cannot_be_read(gateway: str):
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        reply = httpx.post(
            f"{gateway}/predictions/clipcap", content=b"x", headers={"Content-Type": kind}
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


def test_the_model_describes_itself(server: TorchServe):
    described = server.describe(customized=True)["customizedMetadata"]
    assert described["model"] == {"name": "clipcap", "version": "1.0"}
    assert described["options"]["num_beams"]["to"] == 8
    assert all(option["help"] for option in described["options"].values())
    assert described["max_pixels"] == 50_000_000
    assert "JPEG" in described["formats"]


def test_grpc_streaming_gives_one_reply_and_leaves_the_worker_alone(
    server: TorchServe, expected: dict[str, Any]
):
    import grpc

    messages, services = stubs.load()
    with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
        service = services.InferenceAPIsServiceStub(channel)
        for data, found in ((PNG, expected["caption"]), (b"no picture", None)):
            request = messages.PredictionsRequest(model_name="clipcap", input={"data": data})
            replies = list(service.StreamPredictions(request, timeout=30))
            assert len(replies) == 1
            assert json.loads(replies[0].prediction).get("caption") == found


def test_concurrent_requests_share_batches(server: TorchServe, expected: dict[str, Any]):
    pictures = value_of(server, "clipcap_batch_images_sum")
    batches = value_of(server, "clipcap_batch_images_count")
    with (
        CaptionClient(server.rest) as rest,
        CaptionClient(server.grpc) as rpc,
        ThreadPoolExecutor(16) as pool,
    ):
        clients = [rest, rpc] * 20
        results = list(pool.map(lambda client: client.caption(PNG), clients))
    assert {result.caption for result in results} == {expected["caption"]}
    pictures = value_of(server, "clipcap_batch_images_sum") - pictures
    batches = value_of(server, "clipcap_batch_images_count") - batches
    assert pictures == 40
    assert batches < 20  # two and more to a batch


def test_different_options_share_a_batch(server: TorchServe):
    def ask(count: int) -> int:
        with CaptionClient(server.rest) as client:
            return len(client.caption(PNG, num_captions=count).captions)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, [1, 2, 3, 4] * 4)) == [1, 2, 3, 4] * 4


def test_metrics_count_what_happened(server: TorchServe):
    captions = value_of(server, "clipcap_captions_total")
    errors = value_of(server, "clipcap_errors_total", Code="image_undecodable")
    with CaptionClient(server.rest) as client:
        client.caption(PNG)
    httpx.post(f"{server.rest}/predictions/clipcap", content=b"no picture")
    assert value_of(server, "clipcap_captions_total") - captions == 1
    assert value_of(server, "clipcap_errors_total", Code="image_undecodable") - errors == 1
    names = {name for name, _, _ in metrics_of(server)}
    for part in ("decode", "encode", "generate"):
        assert f"clipcap_{part}_seconds_bucket" in names


def test_every_counter_is_there_before_its_first_event(server: TorchServe):
    found = [(name, labels) for name, labels, _ in metrics_of(server)]
    for name, values in COUNTERS.items():
        own = [labels for each, labels in found if each == name]
        label = "Reason" if "reasons" in name or "rows" in name else "Code"
        assert {labels.get(label, "") for labels in own} == set(values), name


def test_tokens_and_reasons_are_counted(server: TorchServe):
    def counted() -> tuple[float, float, float]:
        tokens = value_of(server, "clipcap_tokens_total")
        reasons = value_of(server, "clipcap_finish_reasons_total")
        return tokens, reasons, value_of(server, "clipcap_request_images_sum")

    before = counted()
    document = {"images": [TEXT, TEXT], "num_captions": 2, "num_beams": 2}
    body = httpx.post(f"{server.rest}/predictions/clipcap", json=document).json()
    captions = [caption for result in body["results"] for caption in result["captions"]]
    tokens = sum(caption["tokens"] for caption in captions)
    found = [now - then for now, then in zip(counted(), before, strict=True)]
    assert found == [tokens, 4, 2]


def test_the_worker_imports_no_transformers(server: TorchServe):
    # A process maps the files of the extension modules it has imported; of pure Python packages
    # it leaves no such trace, but transformers does not come without these.
    maps = Path(f"/proc/{server.workers()[0]}/maps").read_text()
    assert "torch" in maps
    for library in ("safetensors", "regex"):
        assert f"site-packages/{library}" not in maps


def test_everything_listens_on_loopback_only(server: TorchServe):
    process = server.process()
    assert process is not None
    listening = {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_nobody_can_register_a_model(server: TorchServe):
    reply = httpx.post(f"{server.management}/models", params={"url": "http://127.0.0.1:1/x.mar"})
    assert reply.status_code >= 400
    reply = httpx.delete(f"{server.management}/models/clipcap")
    assert reply.status_code >= 400


def test_a_log_line_a_request_and_no_header_in_any_log(server: TorchServe):
    def written() -> str:
        return "".join(file.read_text() for file in sorted(server.logs.glob("*.log")))

    before = len(written().splitlines())
    for _ in range(5):
        headers = {"Authorization": "Bearer of-a-secret"}
        httpx.post(f"{server.rest}/predictions/clipcap", content=PNG, headers=headers)
    # One in TorchServe's access log, and one of our own in request_log.log.
    assert 2 * 5 <= len(written().splitlines()) - before <= 2 * 5 + 2
    assert "of-a-secret" not in written()


def test_a_second_server_on_the_same_ports_is_refused_in_one_line(
    server: TorchServe, tmp_path: Path
):
    second = TorchServe(tmp_path, server.archive, server.config)
    port = server.rest.rpartition(":")[2]
    with pytest.raises(ServeError, match=rf"port {port} is in use by java \(process \d+\)"):
        second.start()
    assert second.process() is None


def test_an_archive_that_cannot_be_served_says_why(server: TorchServe, tmp_path: Path):
    broken = tmp_path / "clipcap.mar"
    with zipfile.ZipFile(server.archive) as source, zipfile.ZipFile(broken, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, b"no weights" if name == "captioner.pt" else data)
    config = derived_config(tmp_path / "config.properties", on_free_ports())
    torchserve = TorchServe(tmp_path / "server", broken, config)
    try:
        with pytest.raises(ServeError, match="this archive cannot be served"):
            torchserve.start(timeout=60)
        assert torchserve.process() is None
    finally:
        torchserve.stop()


def test_the_command_line_client(
    server: TorchServe, gateway: str, photo: Path, expected: dict[str, Any]
):
    for address in (server.rest, server.grpc, gateway):
        done = subprocess.run(
            [sys.executable, "-m", "client", "--address", address, "--json", photo, photo],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "40"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["file"] for line in lines] == [str(photo)] * 2
        assert [line["caption"] for line in lines] == [expected["caption"]] * 2
        assert lines[0].keys() == {"file", *expected}


def test_the_command_line_client_shows_a_gateway_its_token(
    server: TorchServe, photo: Path, tmp_path: Path
):
    keys, token = tmp_path / "keys", tmp_path / "token"
    token.write_text(add_key(keys, "client"))
    with running(settings_for(server, keys=keys)) as gateway:
        for words in ([photo], ["--options"]):
            command = [sys.executable, "-m", "client", "--address", gateway, *words]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert "this server needs a key" in done.stderr
            command += ["--token-file", token]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("asked", ["management", "gateway"])
def test_the_command_line_client_prints_the_options(server: TorchServe, gateway: str, asked: str):
    where = ["--address", gateway] if asked == "gateway" else ["--management", server.management]
    done = subprocess.run(
        [sys.executable, "-m", "client", "--options", *where],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [
        line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("--")
    ]
    described = server.describe(customized=True)["customizedMetadata"]["options"]
    assert printed == [f"--{name.replace('_', '-')}" for name in described]


def test_the_command_line_client_says_that_torchserve_is_no_gateway(
    server: TorchServe, capsys: pytest.CaptureFixture[str]
):
    assert main(["--options", "--address", server.rest]) == 1
    shown = capsys.readouterr().err
    assert f"{server.rest} is no gateway" in shown
    assert "--management http://" in shown


def test_a_gateway_has_no_options_of_another_model(
    gateway: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["--options", "--address", gateway, "--model", "other"]) == 1
    assert "model 'other' is not served; ask for 'clipcap'" in capsys.readouterr().err
