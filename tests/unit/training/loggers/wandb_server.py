"""A stand-in for the server of W&B, which takes runs and keeps what was sent."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "tiny", "entity": {"id": "e", "name": "me"}}


class WandbServer(ThreadingHTTPServer):
    """Answers what the client of W&B asks while it sends runs without artifacts.

    Attributes:
        runs: What was sent of each run: the variables of the mutation that begins or changes it.
        lines: Rows of its history.
        files: Names of its other files.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.files: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Data of a GraphQL operation."""
        if operation == "Viewer":
            viewer = {"id": "u", "username": "me", "entity": "me", "email": "", "flags": "{}"}
            return {"viewer": {**viewer, "teams": {"edges": []}}}
        if operation == "UpsertBucket":
            self.runs.append(variables)
            run = {"id": "r", "displayName": variables["displayName"], "config": "{}"}
            bucket = {**run, "name": variables["name"], "project": PROJECT, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": len(self.runs) == 1}}
        if operation == "CreateRunFiles":
            self.files |= set(variables["files"])
            urls = [{"name": f, "uploadUrl": f"{self.address}/put"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": urls}}
        return {"ServerFeaturesQuery": {"serverInfo": {"features": []}}}.get(operation, {})


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _reply(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(content)
            operation = re.findall(r"(?:query|mutation) (\w+)", asked["query"])[0]
            reply = {"data": self.server.answer(operation, asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            history = json.loads(content).get("files", {}).get("wandb-history.jsonl", {})
            self.server.lines += [json.loads(line) for line in history.get("content", [])]
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _reply  # noqa: N815 - names of http.server


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """The server, which listens on a free port while the block runs."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
