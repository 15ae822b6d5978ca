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
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(server: TorchServe) -> Iterator[Any]:
    with running(settings_for(server)) as address:
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


def test_the_documented_options_are_the_captioner_s(server: TorchServe, document: Any):
    parameters = document.raw_schema["paths"]["/v1/captions"]["post"]["parameters"]
    own = httpx.get(f"{server.management}/models/clipcap", params={"customized": "true"}).json()
    options = own[0]["customizedMetadata"]["options"]
    assert {each["name"] for each in parameters} == set(options)
    for each in parameters:
        option = options[each["name"]]
        assert each["in"] == "query"
        assert each["schema"]["minimum"] == option["from"]
        assert each["schema"]["maximum"] == option["to"]
        assert each["schema"]["default"] == option["default"]
        assert each["description"] == option["help"]


def test_a_reply_has_the_documented_form(document: Any):
    operation = document["/v1/captions"]["POST"]
    text = base64.b64encode(sound()["png"]).decode()
    for images in ([text], [text, "AAAA"], ["AAAA"]):
        case = operation.Case(body={"images": images}, media_type="application/json")
        response = case.call(timeout=60)
        case.validate_response(response, checks=CHECKS)
        assert response.status_code == (200 if text in images else 400)
