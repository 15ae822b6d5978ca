"""docs/feedback.md tells the truth: its examples are run, against a real gateway and TorchServe."""

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

import httpx
import pytest

from deploy.torchserve import TorchServe
from feedback.database import open_database, reading
from feedback.reading import counts, opinions
from gateway.routes.feedback import FeedbackReply
from gateway.settings import Settings
from tests import ROOT
from tests.integration.gateways import running, settings_for
from tests.page_blocks import blocks
from training.config import load_config

FILE = ROOT / "docs" / "feedback.md"
PAGE = FILE.read_text()
#: The words of every command.
LINES = [shlex.split(line) for each in blocks(FILE, "sh") for line in each.lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of the repository, with a database of its own."""
    made = tmp_path_factory.mktemp("page")
    (made / "docs").symlink_to(ROOT / "docs")
    return made


@pytest.fixture(scope="module")
def gateway(server: TorchServe, folder: Path) -> Iterator[str]:
    url = f"sqlite:///{folder / 'data' / 'feedback.db'}"
    with running(settings_for(server, feedback=url)) as address:
        yield address


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    del environment["GATEWAY_FEEDBACK"]  # the tests' own; here the default counts
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def block(language: str, words: str) -> str:
    """The only block of a language that has these words."""
    [found] = [
        each for each in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if words in each
    ]
    return found


def python(words: list[str]) -> list[str]:
    return [sys.executable, *words[1:]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_lines_of_curl(gateway: str, folder: Path):
    script = block("sh", "image=@").replace("http://127.0.0.1:8000", gateway)
    done = run(["bash", "-ec", script.replace("\ncurl", "\necho; curl")], folder)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.strip().splitlines()[-2:])
    assert (first["thumbs"], first["replaced"]) == ("down", False)
    assert (second["picture_kept"], second["replaced"]) == (True, True)
    [shown] = re.findall(r"^    (\{\"request_id.*?\})\n\n", PAGE, re.DOTALL | re.MULTILINE)
    assert set(json.loads(shown)) == set(FeedbackReply.model_fields)


def test_the_lines_of_python(gateway: str, folder: Path):
    code = block("python", "client.feedback").replace("http://127.0.0.1:8000", gateway)
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr
    with reading(open_database(f"sqlite:///{folder / 'data' / 'feedback.db'}")) as connection:
        found = list(opinions(connection))
    assert [(each.thumbs, each.correction) for each in found][-2:] == [
        (1, None),
        (None, "two kites"),
    ]


def test_the_commands_of_the_operator(gateway: str, folder: Path):
    png = (ROOT / "docs" / "sample.jpg").read_bytes()
    reply = httpx.post(f"{gateway}/v1/captions", content=png, timeout=60)
    request_id = reply.headers["X-Request-Id"]
    said = httpx.post(f"{gateway}/feedback", json={"request_id": request_id, "thumbs": "up"})
    assert said.status_code == 200
    for words in LINES:
        if "feedback" in words[1:3] or "monitoring.quality" in words:
            shown = [request_id if re.fullmatch(r"[0-9a-f]{32}", each) else each for each in words]
            done = run(python(shown), folder)
            assert done.returncode == 0, done.stderr
    assert (folder / "reports" / "quality.png").is_file()
    assert (folder / "reports" / "quality.json").is_file()
    with reading(open_database(f"sqlite:///{folder / 'data' / 'feedback.db'}")) as connection:
        assert counts(connection).answers >= 0
        assert all(each.thumbs != 1 or each.correction is None for each in opinions(connection))
    gone = httpx.post(f"{gateway}/feedback", json={"request_id": request_id, "thumbs": "up"})
    assert gone.status_code == 404


def test_the_commands_of_training(gateway: str, folder: Path):
    lines = [words for words in LINES if any(w.startswith("training.") for w in words)]
    assert [words[2] for words in lines] == [
        "training.prepare", "training.prepare", "training.features", "training.train",
    ]  # fmt: skip
    look, prepare = lines[:2]
    assert "pictures to train on: " in run(python(look), folder).stdout
    few = "feedback.fractions={train: 1, val: 0, test: 0}"
    done = run([*python(prepare), few, "feedback.workers=0"], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "data" / "feedback" / "captions.json").is_file()
    for words in lines[2:]:
        load_config(words[3:])


def test_the_limits_it_names_are_those_of_the_settings():
    settings = Settings()
    assert f"at most {settings.feedback_text} characters" in PAGE
    assert f"For {settings.feedback_hours:g} hours" in PAGE
    assert f"more than {settings.feedback_hours:g} hours ago" in PAGE
    assert f"after {settings.feedback_days:g} days" in PAGE
    assert f"after the first {settings.feedback_burst:g}" in PAGE
    assert settings.feedback_rate == 1
