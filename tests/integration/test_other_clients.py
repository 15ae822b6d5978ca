"""What clients of other servers send, as they send it, to a real TorchServe and to the gateway."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from client import CaptionClient
from deploy.torchserve import TorchServe
from tests import ROOT
from tests.file_server import file_server
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

PICTURES = sound()
PNG, JPEG = PICTURES["png"], PICTURES["jpeg"]
TEXT, OTHER = (base64.b64encode(data).decode() for data in (PNG, JPEG))
URL = "https://example.org/photo.jpg"
PAGE = (ROOT / "docs" / "requests.md").read_text()


@pytest.fixture(scope="module")
def expected(server: TorchServe) -> dict[str, str]:
    """The caption of each picture's base64 text."""
    with CaptionClient(server.rest) as client:
        return {text: client.caption(data).caption for text, data in ((TEXT, PNG), (OTHER, JPEG))}


def asked(address: str, content: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    body = content if isinstance(content, str | bytes) else json.dumps(content)
    given = {"Content-Type": "application/json", **headers}
    reply = httpx.post(f"{address}/predictions/clipcap", content=body, headers=given, timeout=60)
    return reply.status_code, reply.json()


def tensor(*texts: str, shape: Any = -1) -> dict[str, Any]:
    return {"name": "a", "shape": shape, "datatype": "BYTES", "data": [*texts]}


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": TEXT},
        {"inputs": TEXT, "parameters": {"generate_kwargs": {"num_beams": 5, "use_cache": True}}},
        {"b64": TEXT, "metadata": {"file": "a.png"}},
        {"base64": TEXT.rstrip("="), "signature_name": "serving_default"},
        {"data": {"b64": TEXT}},
        {"image": f"DATA:image/PNG;name=a;Base64,{TEXT}"},
    ],
)
def test_a_document_with_one_picture(
    address: str, document: dict[str, Any], expected: dict[str, str]
):
    status, body = asked(address, document)
    assert (status, body.get("caption")) == (200, expected[TEXT]), body


def test_documents_with_several_pictures(address: str, expected: dict[str, str]):
    both = [expected[TEXT], expected[OTHER]]
    _, body = asked(address, {"inputs": [TEXT, OTHER]})
    assert [each["caption"] for each in body["results"]] == both
    instances = [{"image_bytes": {"b64": TEXT}}, {"data": OTHER, "target": 0}]
    _, body = asked(address, {"signature_name": "a", "instances": instances})
    assert [each["caption"] for each in body["predictions"]] == both
    _, body = asked(address, {"id": "x", "inputs": [tensor(TEXT), tensor(OTHER, shape=[-1])]})
    assert body["id"] == "x"
    outputs = {each["name"]: each for each in body["outputs"]}
    assert (outputs["caption"]["shape"], outputs["caption"]["data"]) == ([2, 1], both)


def test_the_words_of_hugging_face_are_its_options(address: str, server: TorchServe):
    words = {"max_new_tokens": 6, "num_return_sequences": 2, "do_sample": True, "seed": 3}
    status, body = asked(
        address, {"inputs": TEXT, "parameters": {"generate_kwargs": {**words, "top_p": 0.9}}}
    )
    with CaptionClient(server.rest) as client:
        drawn = client.caption(
            PNG, max_tokens=6, num_captions=2, temperature=1.0, seed=3, top_p=0.9
        )
    assert status == 200
    assert [each["caption"] for each in body["captions"]] == [x.caption for x in drawn.captions]


@pytest.mark.parametrize("text", [TEXT, TEXT.rstrip("="), f"data:image/png;base64,{TEXT}\n"])
def test_base64_as_a_body_and_as_a_field(address: str, text: str, expected: dict[str, str]):
    status, body = asked(address, text, **{"Content-Type": "text/plain"})
    assert (status, body.get("caption")) == (200, expected[TEXT]), body
    where = f"{address}/predictions/clipcap"
    reply = httpx.post(where, data={"data": text}, timeout=60)
    assert reply.json()["caption"] == expected[TEXT]
    reply = httpx.post(where, files={"data": (None, text)}, timeout=60)
    assert reply.json()["caption"] == expected[TEXT]


def test_text_that_is_no_picture_gets_the_usual_error(address: str):
    for text, code in (("hello there", "image_undecodable"), (OTHER[:600] + "!", "bad_base64")):
        status, body = asked(address, text, **{"Content-Type": "text/plain"})
        assert (status, body["error"]["code"]) == (400, code)


@pytest.mark.parametrize("content", [URL, {"image": URL}, {"url": URL}, {"inputs": URL}])
def test_a_url_gets_an_error_that_says_what_fetches(address: str, content: Any):
    kind = "text/plain" if isinstance(content, str) else "application/json"
    status, body = asked(address, content, **{"Content-Type": kind})
    assert (status, body["error"]["code"]) == (400, "no_urls")
    assert "GATEWAY_FETCH_URLS" in body["error"]["message"]


def test_a_url_is_fetched_where_that_is_switched_on(server: TorchServe, expected: dict[str, str]):
    settings = settings_for(server, fetch_urls=True, fetch_allowed_networks=("127.0.0.1/32",))
    with running(settings) as address, file_server() as files:
        files.files["/a.png"] = PNG
        url = f"{files.address}/a.png"
        for content in (url, {"inputs": url}, {"url": url}):
            kind = "text/plain" if isinstance(content, str) else "application/json"
            status, body = asked(address, content, **{"Content-Type": kind})
            assert (status, body.get("caption")) == (200, expected[TEXT]), body
        reply = httpx.post(f"{address}/predictions/clipcap", files={"url": (None, url)})
        assert reply.json()["caption"] == expected[TEXT]


def test_hugging_face_s_route_answers_as_its_clients_expect(gateway: str, expected: dict[str, str]):
    where = f"{gateway}/models/clipcap"
    words = {"num_return_sequences": 2, "num_beams": 4, "early_stopping": True}
    document = {"inputs": TEXT, "parameters": {"generate_kwargs": words}}
    assert [[*each] for each in httpx.post(where, json=document).json()] == [["generated_text"]] * 2
    found = httpx.post(where, json={"inputs": [TEXT, OTHER]}).json()
    assert found == [[{"generated_text": expected[each]}] for each in (TEXT, OTHER)]
    assert httpx.post(where, json={"inputs": [tensor(TEXT)]}).status_code == 400


@pytest.mark.parametrize("route", ["/v1/captions", "/predictions/clipcap", "/models/clipcap"])
@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [tensor(TEXT)]},
        {"instances": [TEXT]},
        {"images": [TEXT]},
        {"inputs": 5},
        {"inputs": []},
        {"inputs": [[]]},
        {"image": {"b64": 5}},
        [TEXT],
    ],
)
def test_no_document_is_a_fault_of_the_gateway_in_any_place(
    gateway: str, route: str, document: Any
):
    text = json.dumps(document).encode()
    where = f"{gateway}{route}"
    for how in (
        {"content": text},
        {"json": document},
        {"files": {"data": ("a.json", text)}},
        {"files": {"data": (None, text)}},
    ):
        reply = httpx.post(where, timeout=60, **how)
        assert reply.status_code < 500, (how, reply.text)


# Clients as they are


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_sends_several_tensors(address: str, binary: bool, expected: dict[str, str]):
    tensors = []
    for name, data, text in (("a", PNG, TEXT), ("b", JPEG, OTHER)):
        each = triton.InferInput(name, [1], "BYTES")
        element = data if binary else text.encode()
        each.set_data_from_numpy(np.array([element], dtype=object), binary_data=binary)
        tensors.append(each)
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        found = client.infer("clipcap", tensors, parameters={"num_captions": 1})
    captions = [
        each.decode() if isinstance(each, bytes) else each
        for each in found.as_numpy("caption").ravel()
    ]
    assert captions == [expected[TEXT], expected[OTHER]]


#: Asks with KServe's REST client. `pandas` and `cloudevents`, which it imports for data frames and
#: events but needs for neither of these requests, are not in our environment.
KSERVE = """
import asyncio, json, sys, types
from pathlib import Path

for name, members in {
    "pandas": ["DataFrame", "Series"],
    "cloudevents": [],
    "cloudevents.conversion": ["to_binary", "to_structured"],
    "cloudevents.http": ["CloudEvent"],
}.items():
    try:
        __import__(name)
    except ModuleNotFoundError:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update({member: type(member, (), {}) for member in members})
sys.path.append(sys.argv[1])
# Not `import kserve`, which loads the model server.
package = types.ModuleType("kserve")
package.__path__ = [str(Path(sys.argv[1]) / "kserve")]
sys.modules["kserve"] = package

import base64
import numpy as np
from kserve.inference_client import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferInput, InferRequest


async def main(address, file):
    picture = Path(file).read_bytes()
    text = base64.b64encode(picture).decode()
    found = {}
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    reply = await client.infer(address, {"instances": [{"data": text}]}, model_name="clipcap")
    found["v1"] = reply["predictions"][0]["caption"]
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    for binary in (True, False):
        tensor = InferInput("image", [1], "BYTES")
        element = picture if binary else text.encode()
        tensor.set_data_from_numpy(np.array([element], dtype=object), binary_data=binary)
        request = InferRequest("clipcap", [tensor], parameters={"num_captions": 1})
        reply = await client.infer(address, request, model_name="clipcap")
        [caption] = [each for each in reply.outputs if each.name == "caption"]
        value = caption.as_numpy().ravel()[0]
        found[f"v2 {binary}"] = value.decode() if isinstance(value, bytes) else value
    print(json.dumps(found))


asyncio.run(main(*sys.argv[2:]))
"""


def test_kserve_s_own_client(address: str, expected: dict[str, str], tmp_path: Path):
    package = ROOT / "build" / "kserve"
    if not (package / "kserve").is_dir():
        pytest.skip("KServe's package is not in build/kserve; .ci/run has the command")
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    shown = subprocess.run(
        [sys.executable, "-c", KSERVE, package, address, file],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout.splitlines()[-1])
    assert found == dict.fromkeys(("v1", "v2 True", "v2 False"), expected[TEXT])


# The page


ROWS = re.findall(r"^\| [^|]+ \| `(.+?)` \|", PAGE, re.MULTILINE)
OF_BOTH = [row for row in ROWS if "/predictions/clipcap" in row]
OF_GATEWAY = [row for row in ROWS if "/models/clipcap" in row]


def run(command: str, address: str, place: Path) -> str:
    """What a command of the page prints, in a folder with the files that it names."""
    (place / "photo.jpg").write_bytes(JPEG)
    (place / "photo.b64").write_text(base64.encodebytes(JPEG).decode())
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**os.environ, "SERVER": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_every_command_of_the_page_is_run_here():
    assert PAGE.count("curl -sS") == len(OF_BOTH) + len(OF_GATEWAY) > 15


@pytest.mark.parametrize("command", OF_BOTH)
def test_a_command_of_the_page_captions(
    address: str, command: str, expected: dict[str, str], tmp_path: Path
):
    shown = run(command, address, tmp_path)
    assert json.dumps(expected[OTHER]) in json.dumps(json.loads(shown))


@pytest.mark.parametrize("command", OF_GATEWAY)
def test_a_command_of_the_page_for_hugging_face_s_route_captions(
    gateway: str, command: str, expected: dict[str, str], tmp_path: Path
):
    found = json.loads(run(command, gateway, tmp_path))
    one = [{"generated_text": expected[OTHER]}]
    assert found == ([one] if '[\\"' in command else one)
