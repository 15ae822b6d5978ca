"""The page of the gateway's routes, written from the application that answers them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.access.door import OPEN_PATHS
from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.measures import Measures
from gateway.settings import Settings

#: Content type -> what a reader calls it.
FORMS = {
    "application/octet-stream": "bytes",
    "multipart/form-data": "form",
    "application/json": "JSON",
}


def routes_page() -> str:
    """`docs/routes.md`."""
    parts = [
        "# Routes of the gateway",
        "Every route that the gateway answers, from its own description. A running gateway gives "
        "the whole of it at `/openapi.json`, with schemas of requests and replies, the options of "
        "the captioner that is served, and its name in place of `{name}`: generate clients from "
        "that. [The API page](api.md) has examples and the errors.",
        "Routes marked with a key need one where the gateway has keys.",
    ]
    groups: dict[str, list[str]] = {}
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {})
            shown = ", ".join(FORMS[each] for each in body)
            words = (operation.get("description") or operation["summary"]).partition("\n\n")[0]
            key = "" if path in OPEN_PATHS else "key"
            row = f"| `{method.upper()} {path}` | {shown} | {' '.join(words.split())} | {key} |"
            groups.setdefault(operation["tags"][0], []).append(row)
    for group, rows in groups.items():
        title = group[0].upper() + group[1:]
        head = "| route | takes | what | |\n|---|---|---|---|"
        parts += [f"## {title}", "\n".join([head, *rows])]
    return "\n\n".join(parts)


def _document() -> dict[str, Any]:
    """The OpenAPI document of the application behind the gateway's door."""
    settings = Settings()
    app: Any = create_app(settings, TorchServeClient(settings), Measures())
    while not isinstance(app, FastAPI):
        app = app._app
    return app.openapi()
