"""A server that captures, whose worker is killed, and a gateway that says what has moved."""

from __future__ import annotations

import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch
import yaml

from client import CaptionClient, CaptionError
from deploy.torchserve import TorchServe
from model.artifact import Artifact
from model.ood import pooled
from model.reference_file import Reference, ReferenceRow
from tests.integration.gateways import running, settings_for
from tests.integration.scrape import value_of
from tests.pictures import sound

pq = pytest.importorskip("pyarrow.parquet")

PNG = sound()["png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server captures to."""
    return tmp_path_factory.mktemp("captured") / "captures"


@pytest.fixture(scope="module")
def capturing(
    tiny_archive: Path,
    folder: Path,
    serve: Callable[[Path], TorchServe],
    tmp_path_factory: pytest.TempPathFactory,
) -> TorchServe:
    """A server that writes a file for every ten pictures, or for every second."""
    archive = tmp_path_factory.mktemp("capturing") / "clipcap.mar"
    with zipfile.ZipFile(tiny_archive) as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "model-config.yaml":
                config = yaml.safe_load(content)
                capture = {"folder": str(folder), "rows_a_file": 10, "seconds_a_file": 1}
                config["handler"]["capture"] = capture
                content = yaml.safe_dump(config).encode()
            target.writestr(name, content)
    return serve(archive)


@pytest.fixture(scope="module")
def checkpoint(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reference of the tiny captioner: what it says about noise."""
    artifact = Artifact.load(tiny_artifact)
    side = artifact.preprocessing.size
    features = artifact.encode(torch.randn(60, 3, side, side))
    captions = [each[0] for each in artifact.caption(features, artifact.defaults)]
    scores, p_values = artifact.ood(features)
    rows = [
        ReferenceRow(own.text, own.confidence, None, score, p_value, feature)
        for own, score, p_value, feature in zip(
            captions, scores.tolist(), p_values.tolist(), pooled(features), strict=True
        )
    ]
    made = tmp_path_factory.mktemp("reference")
    Reference(artifact.info["weights_sha256"], "noise", rows).save(made)
    return made


@pytest.fixture(scope="module")
def gateway(
    capturing: TorchServe,
    folder: Path,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A gateway that reports on the captures."""
    settings = settings_for(
        capturing, drift_captures=folder, drift_checkpoint=checkpoint, drift_seconds=900
    )
    with running(settings) as address:
        yield address


def rows_in(folder: Path) -> int:
    """The rows of all files, each of which must be whole."""
    return sum(len(pq.read_table(file)) for file in folder.glob("capture-*.parquet"))


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_captioned_is_captured_and_counted(capturing: TorchServe, folder: Path):
    with CaptionClient(capturing.rest) as client:
        captions = [client.caption(PNG).caption for _ in range(12)]
    wait_until(lambda: rows_in(folder) >= 12)
    newest = sorted(folder.glob("capture-*.parquet"))
    rows = [row for file in newest for row in pq.read_table(file).to_pylist()]
    assert [row["caption"] for row in rows] == captions
    assert len({row["id"] for row in rows}) == 12
    assert not list(folder.glob("images-*"))
    with CaptionClient(capturing.rest) as client:
        client.caption(PNG)  # the counts come with the next batch
    counted = value_of(capturing, "clipcap_capture_rows_total", Reason="written")
    assert counted >= 10
    assert value_of(capturing, "clipcap_ood_p_value_count") == 13


def test_the_gateway_says_what_has_moved(gateway: str, capturing: TorchServe, folder: Path):
    reply = httpx.get(f"{gateway}/drift?last=30", timeout=900)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_drift_report")
    assert "captures of the time" in reply.json()["error"]["message"]
    with CaptionClient(gateway) as client:
        list(client.caption_many([PNG] * 30))
    wait_until(lambda: rows_in(folder) >= 40)
    reply = httpx.get(f"{gateway}/drift?last=30", timeout=900)
    assert reply.status_code == 200
    found = reply.json()
    assert found["moved"] is True  # pictures are no noise
    assert found["captures"] >= 30
    assert "ood score" in found["against"]["training"]["moved"]
    begin = time.monotonic()
    assert httpx.get(f"{gateway}/drift?last=30", timeout=900).json() == found
    assert time.monotonic() - begin < 1  # kept
    assert httpx.get(f"{gateway}/drift?last=3", timeout=900).status_code == 422


def test_a_killed_worker_leaves_whole_files(capturing: TorchServe, folder: Path):
    stop = threading.Event()

    def caption() -> None:
        with CaptionClient(capturing.rest, retries=0) as client:
            while not stop.is_set():
                try:
                    client.caption(PNG, num_beams=1)
                except CaptionError:
                    time.sleep(0.1)  # the worker is away

    before = rows_in(folder)
    clients = [threading.Thread(target=caption) for _ in range(3)]
    for each in clients:
        each.start()
    try:
        wait_until(lambda: rows_in(folder) >= before + 20)
        (worker,) = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any("model_service_worker" in word for word in process.info["cmdline"] or ())
            and _serves(process, folder)
        ]
        os.kill(worker.pid, signal.SIGKILL)
        at_the_kill = rows_in(folder)
        wait_until(lambda: rows_in(folder) >= at_the_kill + 20)
    finally:
        stop.set()
        for each in clients:
            each.join()


def _serves(worker: psutil.Process, folder: Path) -> bool:
    """Whether a worker captures to this folder: its files there have its process id."""
    return any(f"-{worker.pid}-" in file.name for file in folder.iterdir())


def test_without_a_folder_there_is_no_report(capturing: TorchServe):
    with running(settings_for(capturing)) as address:
        assert httpx.get(f"{address}/drift", timeout=60).status_code == 404


def test_a_report_that_takes_too_long_is_ended(capturing: TorchServe, folder: Path):
    settings = settings_for(capturing, drift_captures=folder, drift_seconds=0.05)
    with running(settings) as address:
        reply = httpx.get(f"{address}/drift", timeout=60)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "drift_too_slow")
    words = [each.info["cmdline"] or () for each in psutil.process_iter(["cmdline"])]
    assert not [own for own in words if "monitoring.drift" in own and str(folder) in own]
