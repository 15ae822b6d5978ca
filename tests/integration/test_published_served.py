"""What docs/published-weights.md ends with: a published captioner, served, captions a photo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from model.checkpoint import Checkpoint
from model.export import eager_artifact, export_torchscript
from model.image.decode import MAX_PIXELS, load_image
from model.image.preprocessing import to_pixels
from model.pretrained import published
from tests.pictures import sound
from tests.published_weights import weights_file
from training.archive import archive


def test_published_weights_are_served(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint, photo = tmp_path / "checkpoint", tmp_path / "photo.png"
    words = [weights_file(tmp_path), "--out", checkpoint, "--clip", tiny_clip]
    words += ["--gpt2-tokenizer", gpt2_tokenizer]
    monkeypatch.setattr(sys, "argv", ["model.pretrained.published", *map(str, words)])
    published.main()
    export_torchscript(checkpoint, tmp_path / "artifact")
    archive(tmp_path / "artifact", tmp_path / "clipcap.mar")
    photo.write_bytes(sound()["png"])
    server = TorchServe(
        tmp_path,
        tmp_path / "clipcap.mar",
        derived_config(tmp_path / "config.properties", on_free_ports()),
    )
    server.start()
    try:
        address = f"{server.rest}/predictions/clipcap"
        done = subprocess.run(
            ["curl", "-sS", "-T", photo, address], capture_output=True, text=True, check=True
        )
    finally:
        server.stop()
    artifact = eager_artifact(Checkpoint.load(checkpoint))
    pixels = to_pixels(load_image(photo.read_bytes(), MAX_PIXELS), artifact.preprocessing)
    best = artifact.caption(artifact.encode(pixels[None]), artifact.defaults)[0][0]
    assert json.loads(done.stdout)["caption"] == best.text
