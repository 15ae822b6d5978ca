"""Explanations over REST and gRPC from a real TorchServe, and from the gateway in front of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from client import stubs
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from tests import ROOT
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

PNG = sound()["png"]
TEXT = base64.b64encode(PNG).decode()


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


@pytest.mark.parametrize("route", ["v1/explanations", "explanations/clipcap"])
def test_the_gateway(gateway: str, route: str):
    address = f"{gateway}/{route}"
    checked(httpx.post(address, content=PNG, timeout=60))
    checked(httpx.post(address, json={"image": TEXT, "options": {"grid": 3}}, timeout=60), 3)
    form = {"data": ("a.png", PNG), "grid": (None, "2"), "num_beams": (None, "1")}
    checked(httpx.post(address, files=form, timeout=60), 2)
    query = {"format": "png", "grid": "3"}
    assert opened(httpx.post(address, content=PNG, params=query, timeout=60)).width


def test_the_gateway_s_predictions(gateway: str):
    predictions = f"{gateway}/predictions/clipcap"
    document = {"image": TEXT, "explain": True, "grid": 3}
    checked(httpx.post(predictions, json=document, timeout=60), 3)
    query = {"explain": "true", "grid": "3", "format": "png"}
    assert opened(httpx.put(predictions, content=PNG, params=query, timeout=60)).width
    plain = httpx.post(predictions, json={"image": TEXT, "explain": False}, timeout=60).json()
    assert "explanation" not in plain
    assert plain["caption"]


def test_what_the_gateway_refuses(gateway: str):
    address = f"{gateway}/v1/explanations"
    for asked, status, code in (
        ({"image": TEXT, "grid": 99}, 422, "bad_option"),
        ({"image": TEXT, "format": "svg"}, 422, "bad_option"),
        ({"image": TEXT, "cells": 3}, 400, "unknown_option"),
        ({"images": [TEXT, TEXT]}, 400, "no_explanations"),
        ({"image": "AAAA"}, 400, "image_undecodable"),
        ({"url": "http://127.0.0.1/a.png"}, 400, "no_urls"),
        ({}, 400, "no_image"),
    ):
        reply = httpx.post(address, json=asked, timeout=60)
        error = reply.json()["error"]
        assert (reply.status_code, error["status"], error["code"]) == (status, status, code)
    reply = httpx.post(f"{gateway}/explanations/other", content=PNG, timeout=60)
    assert reply.status_code == 404
    reply = httpx.post(f"{gateway}/v1/captions", json={"image": TEXT, "grid": 3})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_option")


def test_an_explanation_counts_as_many_pictures(server: TorchServe):
    settings = settings_for(server, rate=0.1, burst=2.0)
    with running(settings) as address:
        explanations = f"{address}/v1/explanations?grid=2"
        assert httpx.post(explanations, content=PNG, timeout=60).status_code == 200
        late = httpx.post(f"{address}/v1/captions", content=PNG, timeout=60)
        assert late.status_code == 429
        assert int(late.headers["Retry-After"]) > 100


def test_explanations_need_a_key_where_the_gateway_has_keys(server: TorchServe, tmp_path: Path):
    key = add_key(tmp_path / "keys", "somebody")
    with running(settings_for(server, keys=tmp_path / "keys")) as address:
        explanations = f"{address}/v1/explanations?grid=2"
        assert httpx.post(explanations, content=PNG, timeout=60).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.post(explanations, content=PNG, headers=headers, timeout=60).is_success
        assert 'gateway_pictures_total{outcome="explained"} 1.0' in (
            httpx.get(f"{address}/metrics", headers=headers).text
        )


def page_commands() -> list[str]:
    """The requests in docs/explanations.md."""
    page = (ROOT / "docs" / "explanations.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize("line", page_commands())
def test_a_command_of_the_page(server: TorchServe, gateway: str, line: str, tmp_path: Path):
    line = line.replace("http://127.0.0.1:8000", gateway)
    line = line.replace("http://127.0.0.1:8080", server.rest)
    words = shlex.split(line.replace("explanation.png", str(tmp_path / "explanation.png")))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, timeout=60)
    if "-o" in words:
        assert Image.open(tmp_path / "explanation.png").format == "PNG"
        return
    reply = json.loads(done.stdout)
    assert list(reply) == ["caption", "confidence", "captions", "explanation", "model"]
    found = reply["explanation"]
    assert list(found) == ["grid", "crop", "passes", "words"]
    crop = {"x": 0.125, "y": 0.0, "width": 0.75, "height": 1.0}
    assert found["crop"] == pytest.approx(crop, abs=0.012)  # of an encoder of 32 pixels
    names = ["word", "from", "to", "log_prob", "log_prob_blank", "cells"]
    assert [list(word) for word in found["words"]] == [names] * len(found["words"])
