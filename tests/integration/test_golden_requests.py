"""`python -m monitoring.canary` against a real TorchServe that serves each mistake for real.

One server: archives take each other's place under the same name and version by its management API.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.ports import on_free_ports
from deploy.properties import ROOT, derived_config
from deploy.torchserve import TorchServe
from monitoring import canary
from monitoring.golden.recording import choose, from_artifact
from tests.integration.gateways import free_port, running, settings_for

Once = Callable[..., tuple[int, str, dict[str, float]]]


@pytest.fixture(scope="module")
def store(tiny_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the right archive."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "right.mar").write_bytes(tiny_archive.read_bytes())
    return folder


@pytest.fixture(scope="module")
def swappable(
    store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TorchServe, Callable[[Path], None]]]:
    """A TorchServe, and what puts another archive in the place of the one it serves."""
    folder = tmp_path_factory.mktemp("torchserve")
    changes = {**on_free_ports(), "enable_model_api": "true", "allowed_urls": "file://.*"}
    config = derived_config(folder / "config.properties", changes)
    server = TorchServe(folder, store / "right.mar", config)
    server.start()
    model = f"{server.management}/models/{server.model}"

    def put(archive: Path) -> None:
        httpx.delete(f"{model}/1.0", timeout=60).raise_for_status()
        words = {"url": archive.name, "model_name": server.model, "synchronous": "true"}
        url = f"{server.management}/models"
        reply = httpx.post(url, params={**words, "initial_workers": "1"}, timeout=120)
        assert reply.status_code == 200, reply.text

    try:
        yield server, put
    finally:
        server.stop()


@pytest.fixture(scope="module")
def folder(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden pictures of the tiny captioner, recorded from its artifact by the command."""
    out = tmp_path_factory.mktemp("golden")
    choose(from_artifact(tiny_artifact), canary.SCENES, 5, out)
    done = subprocess.run(
        [sys.executable, "-m", "monitoring.canary", "--record", "--artifact", tiny_artifact]
        + ["--folder", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{out}: 5 pictures of version 1.0-" in done.stdout
    return out


@pytest.fixture
def once(
    swappable: tuple[TorchServe, object],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Once:
    """One round: exit status, what is printed, and the gauges."""

    def start(address: str = swappable[0].rest) -> tuple[int, str, dict[str, float]]:
        file = tmp_path / "golden.prom"
        words = ["--once", "--address", address, "--folder", folder, "--textfile", file]
        monkeypatch.setattr("sys.argv", ["canary", *map(str, words)])
        status = canary.main()
        return status, capsys.readouterr().out, gauges_of(file.read_text())

    return start


def gauges_of(text: str) -> dict[str, float]:
    return {
        "/".join([s.name.removeprefix("clipcap_golden_"), *s.labels.values()]): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("clipcap_golden_")
    }


def changed(store: Path, name: str, file: str, change: Callable[[Any], None]) -> Path:
    """The right archive with one of its JSON files changed."""
    out = store / f"{name}.mar"
    with zipfile.ZipFile(store / "right.mar") as source, zipfile.ZipFile(out, "w") as target:
        for each in source.namelist():
            content = source.read(each)
            if each == file:
                whole = json.loads(content)
                change(whole)
                content = json.dumps(whole).encode()
            target.writestr(each, content)
    return out


def test_the_right_captioner_is_as_expected(once: Once):
    status, out, gauges = once()
    assert status == 0, out
    assert "as expected: 5 of 5 pictures are right" in out
    assert (gauges["match"], gauges["similarity"]) == (1, 1)
    assert gauges["log_prob_difference"] < 1e-4
    assert gauges["feature_cosine"] > 0.99999
    assert gauges["last_success_timestamp_seconds"] == pytest.approx(time.time(), abs=60)


def test_the_same_through_a_gateway(once: Once, swappable: tuple[TorchServe, object]):
    with running(settings_for(swappable[0])) as address:
        status, out, gauges = once(address)
    assert status == 0, out
    assert gauges["feature_cosine"] > 0.99999


def test_a_server_that_cannot_be_asked_is_no_mistake_of_the_captioner(once: Once):
    status, out, gauges = once(f"http://127.0.0.1:{free_port()}")
    assert status == 2
    assert out.count("\n") == 2  # one line for all pictures
    assert "and 4 more: no captioner answers at" in out
    assert gauges["pictures/unasked"] == 5
    assert "match" in gauges
    assert gauges["match"] != gauges["match"]


def test_rounds_go_on_and_prometheus_reads_them(swappable: tuple[TorchServe, object], folder: Path):
    port = free_port()
    words = ["--address", swappable[0].rest, "--folder", folder, "--every", "1", "--port", port]
    started = subprocess.Popen(
        [sys.executable, "-m", "monitoring.canary", *map(str, words)],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            assert started.stdout
            lines = [started.stdout.readline() for _ in range(2)]
            found = gauges_of(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        finally:
            started.send_signal(signal.SIGTERM)
            started.communicate(timeout=60)  # reads on: to write to a closed pipe is an error
    assert started.returncode == 0
    assert all(" as expected: 5 of 5 " in line for line in lines)
    assert found["match"] == 1


def another_model(store: Path, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    import torch

    from model.checkpoint import Checkpoint
    from model.export import export_torchscript
    from training.archive import archive

    checkpoint = Checkpoint.load(tiny_checkpoint)
    with torch.no_grad():
        for weights in checkpoint.captioner.mapper.parameters():
            weights.neg_()
    checkpoint.save(tmp_path / "other")
    export_torchscript(tmp_path / "other", tmp_path / "artifact")
    archive(tmp_path / "artifact", store / "other.mar")
    return store / "other.mar"


def exchange_words(tokenizer: dict[str, Any]) -> None:
    """Exchange two rows of the vocabulary, so that their words are exchanged in captions."""
    vocabulary = tokenizer["model"]["vocab"]
    for one, other in (("Ġboats", "Ġbird"), ("Ġsea", "Ġlake")):
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def exchange_colours(info: dict[str, Any]) -> None:
    for values in (info["preprocessing"]["mean"], info["preprocessing"]["std"]):
        values.reverse()


def test_each_mistake_shows_in_the_next_round(
    once: Once,
    swappable: tuple[TorchServe, Callable[[Path], None]],
    store: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
):
    _, put = swappable
    info = "captioner.json"

    put(another_model(store, tiny_checkpoint, tmp_path))
    status, out, gauges = once()
    assert status == 1, out
    assert gauges["match"] < 1
    assert "the caption is " in out
    assert gauges["feature_cosine"] > 0.99999  # the encoder is the same one
    assert gauges["last_success_timestamp_seconds"] == 0

    def bilinear(whole: dict[str, Any]) -> None:
        whole["preprocessing"]["resample"] = "bilinear"

    for name, change in (("colours", exchange_colours), ("resize", bilinear)):
        put(changed(store, name, info, change))
        status, out, gauges = once()
        assert status == 1, out
        assert gauges["feature_cosine"] < 0.99997, name
        assert gauges["pictures/wrong"] >= 1
        assert "the cosine of its feature is" in out

    put(changed(store, "words", "tokenizer.json", exchange_words))
    status, out, gauges = once()
    assert status == 1, out
    assert gauges["match"] < 1
    assert gauges["feature_cosine"] > 0.99999
