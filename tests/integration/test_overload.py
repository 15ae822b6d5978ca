"""More pictures at once than can be captioned in time, through a real TorchServe."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from client import CaptionClient
from deploy.torchserve import TorchServe
from tests.integration.scrape import value_of
from tests.pictures import sound

PNG = sound()["png"]
#: Put at the end of the archive's `model/artifact.py`: the search takes 0.25 s and more an image.
SLOW = """
import time

_quick_search = Artifact.caption


def _slow_search(self, features, options):
    time.sleep(0.25 * len(features))
    return _quick_search(self, features, options)


Artifact.caption = _slow_search
"""


@pytest.fixture(scope="module")
def slow(
    server: TorchServe,
    serve: Callable[[Path], TorchServe],
    tmp_path_factory: pytest.TempPathFactory,
) -> TorchServe:
    """A server that has 4 s for a batch, which is not enough for 16 pictures."""
    archive = tmp_path_factory.mktemp("slow") / "clipcap.mar"
    with zipfile.ZipFile(server.archive) as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "model/artifact.py":
                data += SLOW.encode()
            elif name == "model-config.yaml":
                config = yaml.safe_load(data)
                config["handler"] |= {"deadline_seconds": 4.0, "threads": 1}
                config["maxBatchDelay"] = 1500  # ms
                data = yaml.safe_dump(config).encode()
            target.writestr(name, data)
    return serve(archive)


def test_what_there_is_no_time_for_is_refused_at_once_and_says_when_to_come_again(
    slow: TorchServe,
):
    workers = slow.workers()
    document = {"instances": [{"data": base64.b64encode(PNG).decode()}] * 4}

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{slow.rest}/v1/models/clipcap:predict", json=document, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 503}  # no 504
    waits = []
    for reply in replies:
        if reply.status_code == 200:
            assert len(reply.json()["predictions"]) == 4
            continue
        error = reply.json()["error"]
        assert (error["status"], error["code"]) == (503, "overloaded")
        assert reply.headers["Retry-After"] == str(error["retry_after_seconds"])
        waits.append(error["retry_after_seconds"])
    assert min(waits) == 1
    assert value_of(slow, "clipcap_errors_total", Code="overloaded") == len(waits)
    assert value_of(slow, "clipcap_errors_total", Code="deadline") == 0
    assert slow.workers() == workers


def test_the_client_comes_again_when_it_is_told(slow: TorchServe):
    refused = value_of(slow, "clipcap_errors_total", Code="overloaded")
    with CaptionClient(slow.grpc) as client, ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: client.caption(PNG), range(16)))
    assert len({result.caption for result in results}) == 1
    assert value_of(slow, "clipcap_errors_total", Code="overloaded") > refused
    assert value_of(slow, "clipcap_errors_total", Code="deadline") == 0
