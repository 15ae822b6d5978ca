"""docs/api.md tells the truth: every example is run, against a real gateway and TorchServe."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.torchserve import TorchServe
from gateway.door import OPEN_PATHS
from gateway.settings import PREFIX, Settings
from tests import ROOT
from tests.file_server import file_server
from tests.integration.gateways import running, settings_for

PAGE = (ROOT / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def gateway(server: TorchServe) -> Iterator[str]:
    with running(settings_for(server)) as address:
        yield address.removeprefix("http://")


def run(words: list[str]) -> str:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60
    ).stdout.decode()


@pytest.mark.parametrize("line", [line for line in blocks("sh")[1].splitlines() if line])
def test_a_command_of_curl_captions(gateway: str, line: str):
    reply = json.loads(run(shlex.split(line.replace("127.0.0.1:8000", gateway))))
    assert reply["succeeded"] == line.count("sample.jpg")
    assert reply["failed"] == 0
    if "num_captions=2" in line:
        assert len(reply["results"][0]["captions"]) == 2


@pytest.mark.parametrize("code", blocks("python"))
def test_an_example_in_python_prints_a_caption(gateway: str, code: str):
    assert "127.0.0.1:8000" in code
    assert run([sys.executable, "-c", code.replace("127.0.0.1:8000", gateway)]).strip()


def test_the_command_for_a_key_makes_one(tmp_path: Path):
    [line] = blocks("sh")[2].splitlines()
    words = shlex.split(line)
    words[0], words[-1] = sys.executable, str(tmp_path / words[-1])
    assert len(run(words).strip()) == 43
    assert Path(words[-1]).is_file()


def test_the_command_of_curl_for_a_url_captions_where_urls_are_fetched(server: TorchServe):
    start, curl = (line for block in blocks("sh")[3:] for line in block.splitlines())
    assert start == "GATEWAY_FETCH_URLS=true .venv/bin/python -m gateway"
    settings = settings_for(server, fetch_urls=True, fetch_allowed_networks=("127.0.0.1/32",))
    with running(settings) as address, file_server() as files:
        files.files["/photo.jpg"] = (ROOT / "docs" / "sample.jpg").read_bytes()
        line = curl.replace("http://127.0.0.1:8000", address)
        reply = json.loads(run(shlex.split(line.replace("https://example.org", files.address))))
    assert reply["succeeded"] == 1, reply
    assert files.asked == [("GET", "/photo.jpg", None)]


def test_every_setting_stands_there_with_its_default():
    rows = dict(re.findall(r"^\| `(GATEWAY_\w+)` \| (?:`(.*?)`)? ?\|", PAGE, re.MULTILINE))
    fields = {f"{PREFIX}{field.name.upper()}": field for field in dataclasses.fields(Settings)}
    assert set(rows) == set(fields)
    for name, text in rows.items():
        given = {name: text} if text else {}
        assert Settings.from_environment(given) == Settings(), name


def test_every_path_without_a_key_is_named():
    for path in OPEN_PATHS:
        shown = "/v2/health/..." if path.startswith("/v2/health/") else path
        assert f"`{shown}`" in PAGE
