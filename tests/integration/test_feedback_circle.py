"""The circle: serve, correct, train on the corrections, serve again.

The real gateway, TorchServe, database, data set, features, training, export, archive and swap; only
the models are small. The corrections describe the pictures by their colour, which the first
captioner, of random weights, does not know.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from client import CaptionClient
from deploy.gateway import Gateway
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from feedback.database import open_database, reading
from model.export import export_torchscript
from monitoring.quality.figures import measure
from tests.integration.gateways import free_port
from training.archive import archive
from training.captioner.train import train
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.encoding.encode_dataset import encode_dataset
from training.prepare import prepare

COLOURS = {"red": (210, 40, 30), "blue": (30, 60, 210)}
#: Pictures of each colour.
EACH = 6


def pictures() -> dict[bytes, str]:
    """PNG file -> the caption that is right."""
    found = {}
    for colour, value in COLOURS.items():
        for number in range(EACH):
            image = Image.new("RGB", (64, 64), value)
            ImageDraw.Draw(image).ellipse((4, 4, 14 + 3 * number, 14 + 3 * number), fill="white")
            image.save(out := io.BytesIO(), "PNG")
            found[out.getvalue()] = f"a white ball on a {colour} wall"
    return found


@pytest.fixture
def gateway(server: TorchServe, tmp_path: Path) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
            patch.delenv(name)
        patch.setenv("GATEWAY_PORT", str(free_port()))
        patch.setenv("GATEWAY_FEEDBACK", f"sqlite:///{tmp_path / 'feedback.db'}")
        started = Gateway(server, tmp_path / "gateway")
        started.start(started.check())
        yield started
        started.stop()


def test_a_correction_is_what_is_served_after_a_training(
    gateway: Gateway, tiny_clip: Path, tmp_path: Path
):
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    right = pictures()
    with CaptionClient(gateway.address) as client:
        for picture, caption in right.items():
            served = client.caption(picture)
            assert served.caption != caption
            said = client.feedback(served, thumbs="down", correction=caption, picture=picture)
            assert said.picture_kept

    folders = {
        "feedback.database": url,
        "feedback.out": tmp_path / "data",
        "features.data": tmp_path / "data",
        "features.out": tmp_path / "features",
        "features.clip": tiny_clip,
        "train.data": tmp_path / "data",
        "train.features": tmp_path / "features",
        "train.out": tmp_path / "checkpoint",
        "train.work": tmp_path / "work",
        "train.curves": tmp_path / "curves",
    }
    config = load_config(
        [
            *(f"{name}={value}" for name, value in folders.items()),
            "prepare.source=feedback",
            "feedback.fractions={train: 0.7, val: 0.3, test: 0}",
            "feedback.workers=0",
            "features.kind=pooled",
            "features.workers=0",
            "train.mapper={kind: linear, prefix_length: 4, clip_length: 4, layers: 1, heads: 2}",
            "train.gpt2={base: null, end_token: null, layers: 1, width: 32, heads: 2,"
            " vocabulary: 300, dropout: 0.0}",
            "train.pair_prior=[]",
            "train.turned=[]",
            "train.captions_together=1",
            "train.batch_size=4",
            "train.epochs=40",
            "train.learning_rate=1e-2",
            "train.precision=32-true",
            "generation.max_tokens=20",
            "generation.num_beams=1",
        ]
    )
    prepare(config)
    data = CaptionDataset.load(tmp_path / "data")
    assert {data.captions[i][0] for i in data.files} == set(right.values())
    assert sorted(file.read_bytes() for file in data.files.values()) == sorted(right)
    encode_dataset(config.features)
    train(config)
    export_torchscript(tmp_path / "checkpoint", tmp_path / "artifact")
    archive(tmp_path / "artifact", tmp_path / "clipcap.mar", version="1.1")

    (tmp_path / "torchserve").mkdir()
    ports = derived_config(tmp_path / "torchserve" / "config.properties", on_free_ports())
    second = TorchServe(tmp_path / "torchserve", tmp_path / "clipcap.mar", ports)
    second.start()
    try:
        gateway.move_to(second)
        with CaptionClient(gateway.address) as client:
            for picture, caption in right.items():
                served = client.caption(picture)
                assert (served.caption, served.version) == (caption, "1.1")
                client.feedback(served, thumbs="up")
    finally:
        second.stop()

    now = time.time()
    with reading(open_database(url)) as connection:
        quality = measure(connection, now - 3600, now)
    shares = {key[-1]: each.up_share() for key, each in quality.versions.items()}
    assert {version: each and each.value for version, each in shares.items()} == {
        "1.0": 0.0,
        "1.1": 1.0,
    }
    assert re.fullmatch(r"\d{4}-W\d\d", next(iter(quality.weeks))[0])
