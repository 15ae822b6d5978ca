"""A fall of quality reaches a real Prometheus: the gauges are scraped and the alert comes up."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from feedback import schema
from feedback.database import open_database, writing
from feedback.tables import feedback
from monitoring.quality.__main__ import main
from monitoring.quality.figures import DAY
from tests import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Shows the file, as the node exporter does with the files of its folder."""

    extensions_map = {".prom": "text/plain; version=0.0.4"}

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[int]:
    """The port of a server that shows the folder of the gauges."""
    (tmp_path / "gauges").mkdir()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "gauges"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def prometheus(shown: int, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes that file every second."""
    config = tmp_path / "prometheus.yml"
    rules = ROOT / "monitoring" / "prometheus" / "rules" / "quality.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(rules)],
                "scrape_configs": [
                    {
                        "job_name": "node",
                        "metrics_path": "/quality.prom",
                        "static_configs": [{"targets": [f"127.0.0.1:{shown}"]}],
                    }
                ],
            }
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
         f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"http://{address}"
    started.kill()
    started.wait()


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}/api/v1/{path}", timeout=10) as reply:
        return json.load(reply)["data"]


def test_a_fall_comes_up_in_prometheus(prometheus: str, tmp_path: Path):
    url, now = f"sqlite:///{tmp_path / 'feedback.db'}", time.time()
    engine = open_database(url, create=True)
    schema.upgrade(engine)
    rows = [
        {
            "answer_id": number, "caption_index": 0, "caller": "c", "request_id": "r",
            "picture_index": 0, "given": now, "answered": now - DAY * (number % 35 + 0.5),
            "model": "clipcap", "version": "1.0", "caption": "a dog", "confidence": 0.5,
            # nine of ten are up until a week ago, then half of them
            "thumbs": -1 if number % (2 if number % 35 < 7 else 10) == 0 else 1,
        }
        for number in range(1, 701)
    ]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(feedback), rows)
    file = tmp_path / "gauges" / "quality.prom"
    assert main(["--database", url, "--textfile", str(file)]) == 0
    end, alerts = time.monotonic() + 60, []
    while not alerts:
        assert time.monotonic() < end
        time.sleep(0.3)
        try:
            alerts = ask(prometheus, "alerts")["alerts"]
        except (urllib.error.URLError, ConnectionError):  # it is starting
            continue
    [alert] = alerts
    assert alert["labels"]["alertname"] == "ClipcapThumbsFell"
    assert alert["labels"]["model"] == "clipcap"
    assert alert["state"] == "pending"  # it fires when this has lasted for two hours
    query = "clipcap_feedback_thumbs_up_share%7Bwindow=%22last_7_days%22%7D"
    [found] = ask(prometheus, f"query?query={query}")["result"]
    assert 0.4 < float(found["value"][1]) < 0.6
