"""`/openapi.json`: the application's own document, with the options of the captioner."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from gateway.captioning import Captioner
from gateway.options import Description

#: Name of an option's type in the description -> in OpenAPI.
TYPES = {"int": "integer", "float": "number"}


def add_route(app: FastAPI, captioner: Captioner) -> None:
    """Serve the document. It is refused with 503 while the captioner cannot be asked."""

    async def document() -> Response:
        found = copy.deepcopy(app.openapi())
        captions = found["paths"]["/v1/captions"]["post"]
        captions["parameters"] = _parameters(await captioner.description())
        return JSONResponse(found)

    app.add_api_route("/openapi.json", document, include_in_schema=False)


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
                "minimum": option["from"],
                "maximum": option["to"],
                "default": option["default"],
            },
        }
        for name, option in description["options"].items()
    ]
