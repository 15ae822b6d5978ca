"""`/openapi.json`: the document of the application, with the captioner's name and options."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from gateway.captioning.captioner import Captioner
from gateway.pictures.options import Description

#: Paths that take options as parameters of their query.
OPTIONS_IN_QUERY = ("/v1/captions", "/predictions/{name}", "/predictions/{name}/{version}")
#: Those that take options and the fields of an explanation.
EXPLANATION_IN_QUERY = ("/v1/explanations", "/explanations/{name}")
#: Name of an option's type in the description -> in OpenAPI.
TYPES = {"int": "integer", "float": "number", "str": "string"}


def add_route(app: FastAPI, captioner: Captioner) -> None:
    """Serve the document. It is refused with 503 while the captioner cannot be asked."""

    async def document() -> Response:
        description = await captioner.description()
        found = copy.deepcopy(app.openapi())
        for path in (*OPTIONS_IN_QUERY, *EXPLANATION_IN_QUERY):
            parameters = _parameters(description)
            if path in EXPLANATION_IN_QUERY:
                parameters += _explanation_parameters(description)
            for operation in found["paths"][path].values():
                operation.setdefault("parameters", []).extend(parameters)
        _name_the_model(found, description["model"])
        return JSONResponse(found)

    app.add_api_route("/openapi.json", document, include_in_schema=False)


def _name_the_model(document: dict[str, Any], model: Mapping[str, str]) -> None:
    """List the one model, and its version, wherever a request names them."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = [model[parameter["name"]]]
    names = {
        "ChatRequest": [model["name"]],
        "OllamaGenerate": [model["name"], f"{model['name']}:latest"],
        "OllamaChat": [model["name"], f"{model['name']}:latest"],
    }
    for schema, accepted in names.items():
        document["components"]["schemas"][schema]["properties"]["model"]["enum"] = accepted


def _parameters(description: Description) -> list[dict[str, Any]]:
    """The options as parameters of a query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": option["help"],
            "schema": {
                "type": TYPES[option["type"]],
                _limit("min", option): option["from"],
                _limit("max", option): option["to"],
                "default": option["default"],
            },
        }
        for name, option in description["options"].items()
    ]


def _explanation_parameters(description: Description) -> list[dict[str, Any]]:
    """The fields of an explanation as parameters of a query; none if there are no explanations."""
    if (known := description.get("explanation")) is None:
        return []
    grid, formats = known["grid"], known["format"]
    limits = {"minimum": grid["from"], "maximum": grid["to"], "default": grid["default"]}
    return [
        {
            "name": "grid",
            "in": "query",
            "required": False,
            "description": "cells on a side of the grid",
            "schema": {"type": "integer", **limits},
        },
        {
            "name": "format",
            "in": "query",
            "required": False,
            "description": "numbers, or a picture to look at",
            "schema": {"type": "string", "enum": formats, "default": formats[0]},
        },
    ]


def _limit(end: str, option: Mapping[str, Any]) -> str:
    """OpenAPI's name of a limit: of text it is one of its length."""
    return f"{end}Length" if option["type"] == "str" else f"{end}imum"
