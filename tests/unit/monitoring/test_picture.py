"""The dashboard drawn from a Prometheus: its queries, lines, and what it says without data."""

from __future__ import annotations

import json
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitoring import picture
from monitoring.panels import ROWS
from monitoring.picture import Prometheus, draw

ASKED: list[dict[str, str]] = []


class Answers(BaseHTTPRequestHandler):
    """Answers as Prometheus does: a line for each status, one for others, none about drift."""

    def do_GET(self) -> None:  # noqa: N802
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        ASKED.append(query)
        end = float(query["end"])
        found = [
            {"metric": {"status": code}, "values": [[end - 5, "0.5"], [end, value]]}
            for code, value in (("200", "0.25"), ("500", "NaN"))
            if "ood" not in query["query"] and (code == "200" or "by (status)" in query["query"])
        ]
        body = json.dumps({"status": "success", "data": {"result": found}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    ASKED.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_query_is_asked_and_drawn(address: str):
    figure = draw(Prometheus(address, 1e9, 600), ["Requests", "Drift"], "20s")
    asked = [query.expr for row in ("Requests", "Drift") for p in ROWS[row] for query in p.queries]
    assert [each["query"] for each in ASKED] == [
        e.replace("$__rate_interval", "20s") for e in asked
    ]
    assert {each["step"] for each in ASKED} == {"2.500"}
    first = figure.axes[0]
    assert first.get_title(loc="left") == "Requests by status"
    assert [line.get_label() for line in first.lines] == ["200", "500"]
    ends = [list(line.get_ydata())[-1] for line in first.lines]
    assert ends == [0.25, 0.5]  # without the moment that has no value
    titles = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert [text.get_text() for text in titles["How unusual pictures are"].texts] == ["no data"]


def test_the_figures_stand_above(address: str):
    figure = draw(Prometheus(address, 1e9, 600), ["Does it work", "Queue"], "1m")
    title = figure.get_suptitle()
    assert "Failed requests: 25.0%" in title
    assert "p95: 0.25 s" in title


def test_what_is_no_prometheus_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["picture", "--prometheus", "http://127.0.0.1:9", "--out", str(tmp_path / "a.png")]
    monkeypatch.setattr(sys, "argv", words)
    assert picture.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: http://127.0.0.1:9 does not answer as a Prometheus: ")
    assert error.count("\n") == 1
    monkeypatch.setattr(sys, "argv", [*words, "--minutes", "-1"])
    assert picture.main() == 2
    assert "--minutes is -1; it must be a number above 0" in capsys.readouterr().err
