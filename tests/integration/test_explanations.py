"""Explanations over REST and gRPC from a real TorchServe, and from the gateway in front of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from client import stubs
from deploy.torchserve import TorchServe
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

PNG = sound()["png"]
TEXT = base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def gateway(server: TorchServe) -> Iterator[str]:
    with running(settings_for(server)) as address:
        yield address


def checked(reply: httpx.Response, grid: int = 8) -> dict[str, Any]:
    """The explanation of a reply, whose form is checked."""
    assert reply.status_code == 200, reply.text
    body = reply.json()
    found: dict[str, Any] = body["explanation"]
    assert found["grid"] == [grid, grid]
    assert found["words"]
    for word in found["words"]:
        assert body["caption"][word["from"] : word["to"]] == word["word"]
        assert [len(row) for row in word["cells"]] == [grid] * grid
    return found


def opened(reply: httpx.Response) -> Image.Image:
    """The picture of a reply."""
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    image = Image.open(io.BytesIO(reply.content))
    image.load()
    return image


def test_the_route_of_torchserve(server: TorchServe):
    explanations = f"{server.rest}/explanations/clipcap"
    checked(httpx.post(explanations, content=PNG, timeout=60))
    checked(httpx.post(explanations, json={"image": TEXT, "grid": 3}, timeout=60), 3)
    form = {"grid": (None, "2"), "data": ("a.png", PNG), "num_beams": (None, "1")}
    checked(httpx.post(explanations, files=form, timeout=60), 2)


@pytest.mark.parametrize("field", ["options", None])
def test_explain_in_json(server: TorchServe, field: str | None):
    asked = {"explain": True, "grid": 4}
    document = {"image": TEXT, **({field: asked} if field else asked)}
    plain = httpx.post(f"{server.rest}/predictions/clipcap", json={"image": TEXT}).json()
    reply = httpx.post(f"{server.rest}/predictions/clipcap", json=document, timeout=60)
    checked(reply, 4)
    assert reply.json()["caption"] == plain["caption"]


def test_a_picture_to_look_at(server: TorchServe):
    form = {"format": (None, "png"), "explain": (None, "true"), "data": ("a.png", PNG)}
    assert opened(httpx.post(f"{server.rest}/predictions/clipcap", files=form, timeout=60)).width
    query = {"explain": "true", "grid": 3, "format": "png"}
    invoke = f"{server.rest}/models/clipcap/invoke"
    assert opened(httpx.post(invoke, content=PNG, params=query, timeout=60)).width


def test_grpc(server: TorchServe):
    import grpc

    messages, services = stubs.load()
    with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
        service = services.InferenceAPIsServiceStub(channel)

        def ask(**fields: bytes) -> bytes:
            request = messages.PredictionsRequest(model_name="clipcap", input=fields)
            return bytes(service.Predictions(request, timeout=60).prediction)

        reply = json.loads(ask(data=PNG, explain=b"true", grid=b"3"))
        assert reply["explanation"]["grid"] == [3, 3]
        sheet = ask(data=PNG, explain=b"true", grid=b"3", format=b"png")
        assert Image.open(io.BytesIO(sheet)).format == "PNG"
        refused = json.loads(ask(data=PNG, explain=b"true", grid=b"99"))
        assert refused["error"]["status"] == 422


def test_what_is_refused(server: TorchServe):
    predictions = f"{server.rest}/predictions/clipcap"
    for member in ({"explain": "perhaps"}, {"explain": True, "grid": 99}, {"grid": 4}):
        reply = httpx.post(predictions, json={"image": TEXT, **member})
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_option")
        assert list(member)[-1] in reply.json()["error"]["message"]
    document = {"instances": [{"data": TEXT}], "explain": True}
    for route in ("predictions/clipcap", "v1/models/clipcap:predict", "v1/models/clipcap:explain"):
        reply = httpx.post(f"{server.rest}/{route}", json=document)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "no_explanations")


def test_explanations_and_captions_at_the_same_time(server: TorchServe):
    def ask(number: int) -> httpx.Response:
        route = "explanations" if number % 3 == 0 else "predictions"
        return httpx.post(f"{server.rest}/{route}/clipcap", content=PNG, timeout=120)

    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(ask, range(12)))
    assert [reply.status_code for reply in replies] == [200] * 12
    assert [n for n, reply in enumerate(replies) if "explanation" in reply.json()] == [0, 3, 6, 9]
    assert len({reply.json()["caption"] for reply in replies}) == 1
