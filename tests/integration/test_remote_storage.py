"""docs/remote-storage.md: its lines push to S3 and Google Cloud Storage, and pull the same bytes.

Emulators of both services run on this machine; the environment names them, so that the lines of the
page are run as they are.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import ROOT

PAGE = (ROOT / "docs" / "remote-storage.md").read_text()
BUCKET = "my-bucket"
#: Kind of bucket -> package of DVC for it, module of its emulator, heading of the page.
KINDS = {
    "s3": ("dvc_s3", "moto", "Amazon S3"),
    "gs": ("dvc_gs", "gcp_storage_emulator", "Google Cloud Storage"),
}
CONTENTS = {"data/a.txt": "alpha", "data/more/b.txt": "beta", "archive.mar": "alphabeta"}
PIPELINE = """
stages:
  prepare: {cmd: "mkdir -p data/more && printf alpha > data/a.txt && printf beta > data/more/b.txt",
            outs: [data]}
  archive: {cmd: "cat data/a.txt data/more/b.txt > archive.mar", deps: [data], outs: [archive.mar]}
"""


def lines(heading: str) -> list[list[str]]:
    """The words of each line of the shell blocks below a heading of the page."""
    part = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    block = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)[0]
    return [shlex.split(line) for line in block.splitlines()]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(params=KINDS)
def heading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs an emulator with an empty bucket; the heading of the lines for it."""
    package, emulator, title = KINDS[request.param]
    for needed, extra in ((package, request.param), (emulator, "buckets")):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"the extra {extra} is not installed")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = {
        "s3": ["moto.server", "-H", "127.0.0.1", "-p", str(port)],
        "gs": ["gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}",
               "--in-memory", f"--default-bucket={BUCKET}"],
    }[request.param]  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, server)
        if request.param == "s3":
            httpx.put(f"{address}/{BUCKET}").raise_for_status()
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        else:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield title
    finally:
        server.kill()  # the one of Google's storage does not end otherwise
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the emulator ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the emulator does not listen")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two stages, our Makefile, and this Python behind `.venv`."""
    folder = tmp_path / "project"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    for number, name in enumerate(("pyproject.toml", "constraints.txt", ".venv/.installed-serve",
                                   ".venv/.installed-train")):  # fmt: skip
        (folder / name).touch()
        os.utime(folder / name, (number, number))
    (folder / "dvc.yaml").write_text(PIPELINE)
    dvc(folder, "init", "--quiet", "--no-scm")
    dvc(folder, "repro", "--quiet")
    return folder


def dvc(folder: Path, *words: str) -> None:
    run([sys.executable, "-m", "dvc", *words], folder)


def run(words: list[str], folder: Path) -> None:
    own = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of a make that runs these tests
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_pushed_is_pulled_with_equal_bytes(heading: str, project: Path):
    found = lines(heading)
    assert found[-1] == ["make", "push"]
    for words in found:
        if words[0] == ".venv/bin/dvc":
            dvc(project, *words[1:])
        elif words[0] == "make":
            run(words, project)
        else:
            assert words[0] in (".venv/bin/pip", "gcloud")
    for name in ("data", ".dvc/cache"):
        shutil.rmtree(project / name)
    (project / "archive.mar").unlink()
    assert ["make", "pull"] in lines("On the other machines")
    run(["make", "pull"], project)
    assert {name: (project / name).read_text() for name in CONTENTS} == CONTENTS
