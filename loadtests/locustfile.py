"""Locust users that send pictures, and sometimes bad requests, and check every reply.

    python -m locust -f loadtests/locustfile.py --host http://127.0.0.1:8080

Every picture is first captioned alone. Under load its reply must be the same. That finds replies
that were given to the wrong request of a batch, which a status of 200 does not show.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import httpx
from locust import HttpUser, constant, events, task

from loadtests.comparison import difference, ties

PATH = "/predictions/clipcap"
PICTURES = Path(os.environ.get("LOADTEST_PICTURES", "data/scenes/images"))
CHOICE = random.Random(int(os.environ.get("LOADTEST_SEED", "7")))
logging.getLogger("httpx").setLevel(logging.WARNING)

#: Bad requests: name -> body, and status and code of the expected refusal.
BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "empty"),
    "text": (b"no picture at all", 400, "image_undecodable"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", 415, "image_format"),
    "broken json": (b'{"image": ', 400, "bad_json"),
    "unknown option": (b'{"image": "", "beams": 3}', 400, "unknown_option"),
    "option out of range": (b'{"image": "", "num_beams": 99}', 422, "bad_option"),
}
OPTIONS: tuple[dict[str, int], ...] = ({}, {}, {}, {"num_beams": 1}, {"num_captions": 3})

pictures: dict[str, bytes] = {}
alone: dict[tuple[str, str], dict[str, Any]] = {}
tied: list[str] = []


@events.init.add_listener  # before the measured run starts
def caption_each_alone(environment: Any, **_: Any) -> None:
    """Read some pictures, and record the reply to each when it is the only request."""
    found = sorted(file for file in PICTURES.glob("*") if file.suffix in (".jpg", ".png"))
    if not found:
        raise SystemExit(f"error: {PICTURES} holds no .jpg and no .png; make them: make train")
    for file in CHOICE.sample(found, min(16, len(found))):
        pictures[file.name] = file.read_bytes()
    with httpx.Client(base_url=environment.host, timeout=60, trust_env=False) as http:
        for name, data in pictures.items():
            for options in {json.dumps(each): each for each in OPTIONS}.values():
                reply = http.post(PATH, files={"data": data}, data=options)
                alone[name, json.dumps(options)] = reply.raise_for_status().json()
    first = next(iter(pictures))
    cut = pictures[first][: len(pictures[first]) // 2]
    BAD["cut short"] = (cut, 400, "image_undecodable")


@events.test_start.add_listener
def create_begun_file(**_: Any) -> None:
    """Tell `loadtests.__main__` that the run starts: it measures the server's memory meanwhile."""
    if file := os.environ.get("LOADTEST_BEGUN"):
        Path(file).touch()


@events.quitting.add_listener
def write_figures(environment: Any, **_: Any) -> None:
    """Write the figures of the run to the file that `loadtests.__main__` reads."""
    total, errors = environment.stats.total, environment.stats.errors.values()
    figures = {
        "requests": total.num_requests,
        "requests_per_second": round(total.total_rps, 2),
        "median_ms": total.median_response_time,
        "p95_ms": total.get_response_time_percentile(0.95),
        "p99_ms": total.get_response_time_percentile(0.99),
        "wrong_replies": sum(e.occurrences for e in errors if "wrong reply" in str(e.error)),
        "unanswered": sum(e.occurrences for e in errors if "wrong reply" not in str(e.error)),
        "ties_percent": round(100 * len(tied) / max(1, total.num_requests), 2),
        "errors": [f"{e.occurrences} x {e.name}: {e.error}" for e in errors][:20],
        "kinds": {entry.name: entry.num_requests for entry in environment.stats.entries.values()},
    }
    if "LOADTEST_FIGURES" in os.environ:
        Path(os.environ["LOADTEST_FIGURES"]).write_text(json.dumps(figures))


class Visitor(HttpUser):
    """Sends a request, checks the reply, and sends the next one."""

    wait_time = constant(0)

    @task(6)
    def bytes_of_a_picture(self) -> None:
        """The bytes of a picture as the body, as `curl -T` sends them."""
        name = CHOICE.choice(list(pictures))
        self._caption("bytes", name, {}, data=pictures[name])

    @task(4)
    def form(self) -> None:
        """A form with options."""
        name, options = CHOICE.choice(list(pictures)), CHOICE.choice(OPTIONS)
        self._caption("form", name, options, files={"data": pictures[name]}, data=options)

    @task(3)
    def document(self) -> None:
        """JSON with the picture as base64."""
        name, options = CHOICE.choice(list(pictures)), CHOICE.choice(OPTIONS)
        text = base64.b64encode(pictures[name]).decode()
        self._caption("json", name, options, json={"image": text, "options": options})

    @task(2)
    def bad_request(self) -> None:
        """A request that must be refused, with the right code."""
        name = CHOICE.choice(list(BAD))
        body, status, code = BAD[name]
        with self.client.post(PATH, data=body, name="bad request", catch_response=True) as reply:
            error = self._json(reply).get("error", {})
            seen = (reply.status_code, error.get("status"), error.get("code"))
            if seen == (status, status, code):
                reply.success()
            else:
                reply.failure(f"wrong reply: {name} gave {seen}, not {(status, code)}")

    def _caption(self, kind: str, name: str, options: dict[str, int], **body: Any) -> None:
        expected = alone[name, json.dumps(options)]
        with self.client.post(PATH, name=kind, catch_response=True, **body) as reply:
            if reply.status_code == 0 or reply.status_code >= 500:
                reply.failure(f"unanswered: {reply.status_code} {reply.text!r:.80}")
                return
            seen = self._json(reply)
            if problem := difference(seen, expected):
                reply.failure(f"wrong reply: {name}: {problem}")
            else:
                tied.extend(ties(seen, expected))
                reply.success()

    @staticmethod
    def _json(reply: Any) -> dict[str, Any]:
        try:
            body = json.loads(reply.text or "{}")
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}
