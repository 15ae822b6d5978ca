"""docs/api.md tells the truth: every example is run, against a real gateway and TorchServe."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.torchserve import TorchServe
from gateway.access.door import OPEN_PATHS
from tests import ROOT
from tests.file_server import file_server
from tests.integration.gateways import running, settings_for

PAGE = (ROOT / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def lines(words: str) -> list[str]:
    """The lines of the shell blocks that have these words."""
    return [line for block in blocks("sh") for line in block.splitlines() if words in line]


@pytest.fixture(scope="module")
def gateway(server: TorchServe) -> Iterator[str]:
    with running(settings_for(server)) as address:
        yield address.removeprefix("http://")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the pictures that the page names."""
    (tmp_path / "holiday").mkdir()
    shutil.copy(ROOT / "docs" / "sample.jpg", tmp_path / "holiday" / "photo.jpg")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def run(words: list[str], place: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=place, env=environment, capture_output=True, check=True, timeout=60
    ).stdout.decode()


def test_every_command_is_run_here():
    kinds = ("-m gateway\n", "curl ", "-m client ", "-m gateway.key ")
    for block in blocks("sh"):
        assert all(any(kind in f"{line}\n" for kind in kinds) for line in block.splitlines())


@pytest.mark.parametrize("line", [line for line in lines("curl ") if '"url"' not in line])
def test_a_command_of_curl_captions(gateway: str, line: str):
    reply = json.loads(run(shlex.split(line.replace("127.0.0.1:8000", gateway))))
    if "/v1/captions" in line:
        assert (reply["succeeded"], reply["failed"]) == (1, 0)
        [reply] = reply["results"]
    elif line.count("-F data=") == 2:
        assert (reply["succeeded"], reply["failed"]) == (2, 0)
        return
    assert len(reply["captions"]) == (2 if "num_captions=2" in line else 1)


@pytest.mark.parametrize("line", lines("-m client "))
def test_a_command_of_the_client_prints_or_writes_captions(gateway: str, line: str, place: Path):
    words = shlex.split(line.replace("127.0.0.1:8000", gateway))
    shown = run([sys.executable, *words[1:]], place)
    if "holiday" in words:
        written = place / "holiday" / "photo.txt" if "--text" in words else place / "captions.csv"
        assert written.read_text().strip()
        assert ("--jsonl" in words) == (place / "captions.jsonl").exists()
    elif "--json" in words:
        assert len(json.loads(shown)["captions"]) == 2
    else:
        assert ("--num-beams" if "--options" in words else "docs/sample.jpg: ") in shown


@pytest.mark.parametrize("code", blocks("python"))
def test_an_example_in_python_prints_captions(
    server: TorchServe, gateway: str, code: str, place: Path
):
    ports = {"127.0.0.1:8000": gateway, "127.0.0.1:7070": server.grpc.removeprefix("grpc://")}
    [asked] = [address for address in ports if address in code]
    shown = run([sys.executable, "-c", code.replace(asked, ports[asked])], place)
    two = "num_captions" in code or "n=2" in code or "[picture, picture]" in code
    all_shown = "for " in code
    assert len(shown.strip().splitlines()) >= (2 if two and all_shown else 1)
    assert "error" not in shown


def test_the_table_leads_to_sections_of_the_page():
    titles = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    named = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(named) > 5
    assert set(named) <= anchors


def test_the_command_for_a_key_makes_one(tmp_path: Path):
    [line] = lines("-m gateway.key ")
    words = shlex.split(line)
    words[0], words[-1] = sys.executable, str(tmp_path / words[-1])
    assert len(run(words).strip()) == 43
    assert Path(words[-1]).is_file()


def test_the_command_of_curl_for_a_url_captions_where_urls_are_fetched(server: TorchServe):
    assert lines("GATEWAY_FETCH_URLS") == ["GATEWAY_FETCH_URLS=true .venv/bin/python -m gateway"]
    [curl] = lines('"url"')
    settings = settings_for(server, fetch_urls=True, fetch_allowed_networks=("127.0.0.1/32",))
    with running(settings) as address, file_server() as files:
        files.files["/photo.jpg"] = (ROOT / "docs" / "sample.jpg").read_bytes()
        line = curl.replace("http://127.0.0.1:8000", address)
        reply = json.loads(run(shlex.split(line.replace("https://example.org", files.address))))
    assert reply["succeeded"] == 1, reply
    assert files.asked == [("GET", "/photo.jpg", None)]


def test_every_path_without_a_key_is_named():
    for path in OPEN_PATHS:
        shown = "/v2/health/..." if path.startswith("/v2/health/") else path
        assert f"`{shown}`" in PAGE
