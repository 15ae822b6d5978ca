"""`python -m scale.serve` on a real Ray: TorchServe's replies, the gateway in front, a death."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from client import CaptionClient
from deploy.torchserve import TorchServe
from gateway.settings import Settings
from handler.caption_settings import cores
from tests import ROOT
from tests.integration.gateways import running
from tests.pictures import broken, sound
from tests.processes import free_port

if importlib.util.find_spec("ray") is None:
    pytest.skip("the extra scale is not installed", allow_module_level=True)

#: Two, where there are processors for them.
REPLICAS = min(2, cores())
#: How Ray calls the process of a replica.
REPLICA = "ray::ServeReplica:clipcap:captioner"
MAX_BYTES = 4_000_000
SOUND, BROKEN = sound(), broken()
PNG = SOUND["png"]
TEXT = base64.b64encode(PNG).decode()
JSON = {"Content-Type": "application/json"}
JPEG = {"Content-Type": "image/jpeg"}
URL_ENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
V2 = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
CLIPCAP, INVOKE = "/predictions/clipcap", "/models/clipcap/invoke"

#: What clients send: a path, and the arguments of `httpx.post`.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bytes": (CLIPCAP, {"content": PNG}),
    "bytes with a type": (CLIPCAP, {"content": PNG, "headers": JPEG}),
    "bytes called text": (CLIPCAP, {"content": PNG, "headers": {"Content-Type": "text/plain"}}),
    "a version": (f"{CLIPCAP}/1.0", {"content": PNG}),
    "a form": (CLIPCAP, {"files": {"data": ("a.png", PNG)}, "data": {"num_beams": "3"}}),
    "a form without file names": (CLIPCAP, {"files": {"image": (None, TEXT.encode())}}),
    "a form with a document": (
        CLIPCAP,
        {"files": {"data": ("a", json.dumps({"image": TEXT}), "application/json")}},
    ),
    "a form without a picture": (CLIPCAP, {"files": {"num_beams": (None, b"2")}}),
    "two pictures in a form": (CLIPCAP, {"files": {"data": PNG, "image": PNG}}),
    "an encoded form": (CLIPCAP, {"data": {"image": TEXT, "num_captions": "1"}}),
    "json": (CLIPCAP, {"json": {"image": TEXT, "options": {"num_beams": 4, "num_captions": 3}}}),
    "several": (CLIPCAP, {"json": {"images": [TEXT, "aGVsbG8=", TEXT]}}),
    "features": (CLIPCAP, {"json": {"image": TEXT, "features": "base64"}}),
    "kserve v1": ("/v1/models/clipcap:predict", {"json": {"instances": [{"image": TEXT}]}}),
    "kserve v2": ("/v2/models/clipcap/infer", {"json": V2}),
    "a query": (INVOKE, {"content": PNG, "params": {"num_beams": "3", "num_captions": "2"}}),
    "a query with a fault": (INVOKE, {"content": PNG, "params": {"beams": "3"}}),
    "a query that is dropped": (CLIPCAP, {"content": PNG, "params": {"num_beams": "99"}}),
    "an option out of range": (CLIPCAP, {"json": {"image": TEXT, "num_beams": 99}}),
    "an unknown option": (CLIPCAP, {"json": {"image": TEXT, "beams": 1}}),
    "no json": (CLIPCAP, {"content": b'{"image": ', "headers": JSON}),
    "nested json": (CLIPCAP, {"content": b"[" * 50_000, "headers": JSON}),
    "broken base64": (CLIPCAP, {"json": {"image": "%%%%"}}),
    "a url": (CLIPCAP, {"json": {"url": "http://example.org/a.jpg"}}),
    "empty": (CLIPCAP, {"content": b""}),
    "no time left": (CLIPCAP, {"content": PNG, "headers": {"X-Request-Deadline": "1"}}),
    "a wrong deadline": (CLIPCAP, {"content": PNG, "headers": {"X-Request-Deadline": "soon"}}),
    "an explanation": ("/explanations/clipcap", {"json": {"image": TEXT, "grid": 4}}),
    "an explanation as a picture": (
        "/explanations/clipcap",
        {"json": {"image": TEXT, "grid": 4, "format": "png"}},
    ),
    **{name: (CLIPCAP, {"content": data}) for name, (data, _, _) in BROKEN.items()},
}


def replicas(command: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that caption."""
    found = []
    for process in psutil.Process(command.pid).children(recursive=True):
        try:
            if REPLICA in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="module")
def ray_serve(
    tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command, and the address that it serves."""
    port, folder = free_port(), tmp_path_factory.mktemp("ray-serve")
    log = folder / "log"
    words = ["--artifact", tiny_artifact, "--port", port, "--threads", 1, "--min-replicas",
             REPLICAS, "--max-replicas", REPLICAS, "--max-request-bytes", MAX_BYTES]  # fmt: skip
    with log.open("wb") as out:
        command = subprocess.Popen(
            [sys.executable, "-m", "scale.serve", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "HOME": str(folder), "RAY_worker_niceness": "0"},
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + 400
        while "is served at" not in log.read_text():
            assert command.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield command, f"http://127.0.0.1:{port}"
        left = psutil.Process(command.pid).children(recursive=True)
        command.send_signal(signal.SIGTERM)
        assert command.wait(120) == 0, log.read_text()
        _, alive = psutil.wait_procs(left, 20)
        assert not alive
    finally:
        if command.poll() is None:
            for process in psutil.Process(command.pid).children(recursive=True):
                process.kill()
            command.kill()
        command.wait()


@pytest.fixture(scope="module")
def gateway(ray_serve: tuple[subprocess.Popen[bytes], str]) -> Iterator[str]:
    """A gateway whose backend is Ray Serve."""
    _, address = ray_serve
    addresses = dict.fromkeys(("inference", "management", "metrics"), address)
    with running(Settings(port=free_port(), **addresses)) as found:
        yield found


def reply(address: str, name: str) -> tuple[int, str | None, bytes]:
    path, arguments = REQUESTS[name]
    found = httpx.post(f"{address}{path}", timeout=120, **arguments)
    return found.status_code, found.headers.get("content-type"), found.content


def test_replies_are_those_of_torchserve(
    server: TorchServe, ray_serve: tuple[subprocess.Popen[bytes], str]
):
    command, address = ray_serve
    before = {process.pid for process in replicas(command)}
    assert len(before) == REPLICAS
    with ThreadPoolExecutor(4) as pool:  # so that batches have several of them
        found = dict(pool.map(lambda each: (each, reply(address, each)), REQUESTS))
        wanted = dict(pool.map(lambda each: (each, reply(server.rest, each)), REQUESTS))
    different = {name: (found[name], wanted[name]) for name in REQUESTS
                 if found[name] != wanted[name]}  # fmt: skip
    assert not different
    assert {status for status, _, _ in found.values()} == {200, 400, 413, 415, 422, 504}
    # Nothing that a client sends ends a replica.
    assert {process.pid for process in replicas(command)} == before


def test_what_torchserve_answers_wrongly_is_answered_here(
    ray_serve: tuple[subprocess.Popen[bytes], str],
):
    _, address = ray_serve

    def error(sent: httpx.Response) -> tuple[int, str]:
        return sent.status_code, sent.json()["error"]["code"]

    url = f"{address}{CLIPCAP}"
    assert error(httpx.post(url, content=b"a" * (MAX_BYTES + 1))) == (413, "request_too_large")
    assert error(httpx.post(url, content=(b"a" * 99_999 for _ in range(41)))) == (
        413,
        "request_too_large",
    )
    damaged = {"Content-Type": "multipart/form-data; boundary=x"}
    assert httpx.post(url, content=b"--y", headers=damaged).status_code == 400
    assert error(httpx.post(url, content=PNG, headers=URL_ENCODED)) == (400, "no_image")
    assert error(httpx.post(f"{address}/predictions/other")) == (404, "model_not_found")
    assert error(httpx.delete(url)) == (405, "method_not_allowed")


def test_the_gateway_takes_it_as_its_backend(gateway: str):
    with CaptionClient(gateway, timeout=120, retries=0) as client:
        assert client.caption(PNG, num_beams="3").caption
    assert httpx.get(f"{gateway}/readyz", timeout=60).status_code == 200
    described = httpx.get(f"{gateway}/v1/description", timeout=60).json()
    assert described["options"]["num_beams"]["default"]
    assert described["max_pictures"]
    end = time.monotonic() + 60
    while True:
        text = httpx.get(f"{gateway}/metrics", timeout=60).text
        counted = re.search(r"^clipcap_captions_total\{.*\} (\d+)", text, re.MULTILINE)
        if counted and int(counted[1]):
            break
        assert time.monotonic() < end, text
        time.sleep(0.2)
    assert re.search(rf"^gateway_torchserve_workers_ready {REPLICAS}\.0$", text, re.MULTILINE)
    assert re.search(r'^clipcap_errors_total\{.*Code="bad_option".*\} \d', text, re.MULTILINE)
    assert re.search(r"^clipcap_encode_seconds_count\{", text, re.MULTILINE)


def test_nothing_is_lost_when_a_replica_is_killed_under_load(
    ray_serve: tuple[subprocess.Popen[bytes], str], gateway: str
):
    command, _ = ray_serve
    killed = threading.Event()
    url, found = f"{gateway}{CLIPCAP}", list[int]()

    def ask() -> None:
        with httpx.Client(timeout=120) as client:
            after = 0
            while after < 5:  # so many after the death
                found.append(client.post(url, content=PNG).status_code)
                after += killed.is_set()

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        wait_until(lambda: len(found) > 12)
        dead = replicas(command)[0]
        dead.kill()
        killed.set()
        for each in asking:
            each.result(200)
    assert set(found) == {200}
    wait_until(lambda: len(replicas(command)) == REPLICAS)
    assert dead.pid not in {process.pid for process in replicas(command)}


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
