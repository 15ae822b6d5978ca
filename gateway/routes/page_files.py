"""The web page: the files of `gateway/page/`, each under its own name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, PlainTextResponse, Response

FOLDER = Path(__file__).parents[1] / "page"
#: Kinds of files that a page is made of.
KINDS = (".html", ".css", ".js", ".svg", ".png", ".ico", ".webmanifest")
WITHOUT_PAGE = (
    "The captioner's gateway. POST /v1/captions takes pictures; GET /v1/description lists the "
    "options; GET /openapi.json describes everything.\n"
)


def page_files(folder: Path = FOLDER) -> dict[str, Path]:
    """The path of a request for each file of the page; `/` is `index.html`."""
    files = sorted(file for file in folder.glob("*") if file.suffix in KINDS)
    found = {f"/{file.name}": file for file in files}
    if index := found.pop("/index.html", None):
        found["/"] = index
    return found


def routes(files: dict[str, Path]) -> APIRouter:
    """A route for each file, or one line of text at `/` if there is no page."""
    router = APIRouter(include_in_schema=False)
    for path, file in files.items():
        router.add_api_route(path, _sender(file), methods=["GET", "HEAD"])
    if "/" not in files:
        router.add_api_route("/", _without_page, methods=["GET", "HEAD"])
    return router


def _sender(file: Path) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        # Asked again each time, with the file's date and size: an upgrade shows at once.
        return FileResponse(file, headers={"Cache-Control": "no-cache"})

    return send


async def _without_page() -> Response:
    return PlainTextResponse(WITHOUT_PAGE)
