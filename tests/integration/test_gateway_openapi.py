"""What the gateway documents is what it answers: requests are generated from its OpenAPI."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.torchserve import TorchServe
from gateway.routes.openapi import EXPLANATION_IN_QUERY, OPTIONS_IN_QUERY
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(server: TorchServe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    database = f"sqlite:///{tmp_path_factory.mktemp('feedback') / 'feedback.db'}"
    with running(settings_for(server, feedback=database, feedback_rate=0)) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_every_answer_is_documented_and_none_is_a_fault(document: Any):
    operations = [each.ok() for each in document.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        check()


def test_every_route_is_documented(document: Any):
    paths = document.raw_schema["paths"]
    for path in (
        "/v1/captions",
        "/v1/description",
        "/feedback",
        "/v1/explanations",
        "/explanations/{name}",
        "/predictions/{name}",
        "/predictions/{name}/{version}",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{name}:predict",
        "/api/generate",
        "/api/chat",
        "/api/tags",
        "/api/version",
        "/models/{name}",
        "/v2/models/{name}/infer",
        "/v2/health/live",
        "/healthz",
        "/readyz",
        "/metrics",
    ):
        assert path in paths
    for path, operations in paths.items():
        for operation in operations.values():
            assert {"200", "401", "404", "405", "500"} <= set(operation["responses"]), path
            assert operation["responses"]["200"]["content"]


@pytest.mark.parametrize("path", OPTIONS_IN_QUERY)
def test_the_documented_options_are_the_captioner_s(server: TorchServe, document: Any, path: str):
    documented = document.raw_schema["paths"][path]["post"]["parameters"]
    parameters = [each for each in documented if each["in"] != "path"]
    own = httpx.get(f"{server.management}/models/clipcap", params={"customized": "true"}).json()
    options = own[0]["customizedMetadata"]["options"]
    assert {each["name"] for each in parameters} == set(options)
    for each in parameters:
        option = options[each["name"]]
        assert each["in"] == "query"
        least, most = ("minimum", "maximum")
        if option["type"] == "str":
            least, most = ("minLength", "maxLength")
        assert each["schema"][least] == option["from"]
        assert each["schema"][most] == option["to"]
        assert each["schema"]["default"] == option["default"]
        assert each["description"] == option["help"]


@pytest.mark.parametrize("path", EXPLANATION_IN_QUERY)
def test_the_documented_fields_of_explanations_are_the_captioner_s(
    server: TorchServe, document: Any, path: str
):
    documented = document.raw_schema["paths"][path]["post"]["parameters"]
    schemas = {each["name"]: each["schema"] for each in documented if each["in"] == "query"}
    own = httpx.get(f"{server.management}/models/clipcap", params={"customized": "true"}).json()
    described = own[0]["customizedMetadata"]
    assert set(schemas) == {*described["options"], "grid", "format"}
    grid = described["explanation"]["grid"]
    assert (schemas["grid"]["minimum"], schemas["grid"]["maximum"]) == (grid["from"], grid["to"])
    assert schemas["format"]["enum"] == described["explanation"]["format"]


def bodies() -> list[tuple[str, Any, int]]:
    """Path, body and status of requests that each interface answers with captions, or refuses."""
    png = sound()["png"]
    text, bad = base64.b64encode(png).decode(), "AAAA"
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
    chat = {"model": "clipcap", "messages": [{"role": "user", "content": [image]}]}
    drawn = {"model": "clipcap", "images": [text]}
    told = {"model": "clipcap", "messages": [{"role": "user", "images": [text]}]}
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    binary = {"parameters": {"binary_data_output": True}}
    return [
        ("/v1/captions", {"images": [text]}, 200),
        ("/v1/captions", {"images": [text, bad]}, 200),
        ("/v1/captions", {"images": [bad]}, 400),
        ("/v1/captions", {"url": "https://example.org/a.png"}, 400),
        ("/feedback", {"request_id": "unknown", "thumbs": "up"}, 404),
        ("/feedback", {"request_id": "unknown"}, 422),
        ("/feedback", {"request_id": "unknown", "thumbs": "up", "image": "%"}, 400),
        ("/v1/explanations", {"image": text, "grid": 2}, 200),
        ("/v1/explanations", {"image": text, "grid": 2, "format": "png"}, 200),
        ("/v1/explanations", {"image": text, "grid": 99}, 422),
        ("/explanations/{name}", {"image": text, "grid": 2}, 200),
        ("/explanations/{name}", {"image": bad}, 400),
        ("/predictions/{name}", {"image": text, "explain": True, "grid": 2}, 200),
        ("/predictions/{name}", {"image": text}, 200),
        ("/predictions/{name}", {"image": bad}, 400),
        ("/predictions/{name}", {"instances": [text]}, 200),
        ("/predictions/{name}", {"inputs": [tensor]}, 200),
        ("/predictions/{name}", {"inputs": [{**tensor, "data": [bad]}]}, 400),
        ("/predictions/{name}/{version}", {"image": text}, 200),
        ("/v1/chat/completions", chat, 200),
        ("/v1/chat/completions", {**chat, "stream": True}, 200),
        ("/api/generate", {**drawn, "stream": False}, 200),
        ("/api/generate", drawn, 200),
        ("/api/generate", {**drawn, "images": [bad]}, 400),
        ("/api/chat", {**told, "stream": False}, 200),
        ("/api/chat", told, 200),
        ("/models/{name}", {"inputs": text}, 200),
        ("/v1/models/{name}:predict", {"instances": [text]}, 200),
        ("/v2/models/{name}/infer", {"inputs": [tensor]}, 200),
        ("/v2/models/{name}/infer", {"inputs": [tensor], **binary}, 200),
        ("/v2/models/{name}/infer", {"inputs": [{**tensor, "data": [bad]}]}, 400),
    ]


def test_a_feedback_has_the_documented_form(document: Any):
    image = {"image": base64.b64encode(sound()["png"]).decode()}
    captions = document["/v1/captions"]["POST"].Case(body=image, media_type="application/json")
    [request_id] = captions.call(timeout=60).headers["x-request-id"]
    body = {"request_id": request_id, "thumbs": "up", "correction": "a boat"}
    case = document["/feedback"]["POST"].Case(body=body, media_type="application/json")
    response = case.call(timeout=60)
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize(("path", "body", "status"), bodies())
def test_a_reply_has_the_documented_form(document: Any, path: str, body: Any, status: int):
    case = document[path]["POST"].Case(
        body=body,
        media_type="application/json",
        path_parameters={"name": "clipcap", "version": "1.0"},
    )
    response = case.call(timeout=60)
    assert response.status_code == status
    if response.headers["content-type"][0].startswith("application/json"):
        case.validate_response(response, checks=CHECKS)
    else:  # streams and binary tensors have no schema
        case.validate_response(response, checks=CHECKS[:3])
