"""The command of a container starts a real TorchServe, shows a failure, and ends by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from client import CaptionClient
from deploy.container.health import gateway_is_ready, torchserve_is_ready
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from tests import ROOT
from tests.integration.gateways import running, settings_for
from tests.unit.deploy.test_container import changed

#: `main` of start.py, with an archive and a configuration of ours.
CODE = """
import sys
from pathlib import Path
from deploy.container import start
archive, config = Path(sys.argv.pop()), Path(sys.argv.pop())
start.choose_archive = lambda: archive
start.serve.__defaults__ = (config,)
sys.exit(start.main())
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return derived_config(tmp_path / "config.properties", on_free_ports())


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "t"
    folder.mkdir()
    yield folder
    assert [each for each in folder.iterdir() if not each.name.startswith("hsperf")] == []


def start(archive: Path, config: Path, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "torchserve", config, archive],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_until_sigterm(tiny_archive: Path, config: Path, temporary: Path):
    process = start(tiny_archive, config, temporary)
    try:
        deadline = time.monotonic() + 300
        while not torchserve_is_ready(config):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        workers = TorchServe(Path(), tiny_archive, config).workers()
        with CaptionClient(TorchServe(Path(), tiny_archive, config).rest) as client:
            assert client.caption(ROOT / "docs" / "sample.jpg").captions
    finally:
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert time.monotonic() - begin < 30
    assert "captioner clipcap 1.0 is ready" in out
    assert '"POST /predictions/clipcap HTTP/1.1" 200' in out
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert not torchserve_is_ready(config)


def test_an_archive_that_a_worker_cannot_load_ends_it(
    tiny_archive: Path, config: Path, temporary: Path, tmp_path: Path
):
    with zipfile.ZipFile(tiny_archive) as archive:
        tokenizer = archive.read("tokenizer.json")
    other = changed(tiny_archive, tmp_path / "other.mar", {"tokenizer.json": tokenizer[:-20]})
    out, err = start(other, config, temporary).communicate(timeout=300)
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error: the worker cannot start: this archive cannot be served: ")
    assert "tokenizer.json" in lines[-1]


def test_a_file_that_is_no_archive_is_refused_before_the_start(
    config: Path, temporary: Path, tmp_path: Path
):
    file = tmp_path / "text.mar"
    file.write_text("not a zip file")
    process = start(file, config, temporary)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out == f"serving {file}\n"
    assert err == (
        f"error: {file} is no archive: not a whole zip file; python -m training.archive makes one\n"
    )


def test_the_health_check_of_the_gateway(server: TorchServe, monkeypatch: pytest.MonkeyPatch):
    settings = settings_for(server)
    monkeypatch.setenv("GATEWAY_HOST", "0.0.0.0")
    monkeypatch.setenv("GATEWAY_PORT", str(settings.port))
    assert not gateway_is_ready()
    with running(settings):
        assert gateway_is_ready()
    nowhere = settings_for(server, management="http://127.0.0.1:9")
    monkeypatch.setenv("GATEWAY_PORT", str(nowhere.port))
    with running(nowhere):
        assert not gateway_is_ready()
