"""What docs/published-weights.md begins with: a published captioner, by name, captions a photo."""

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
from tests.hub_server import add_published, hub_server
from tests.pictures import sound
from training.archive import archive


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["model.pretrained.published", *map(str, words)])
    published.main()


def test_published_weights_are_served(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint, by_hand, photo = (tmp_path / n for n in ("checkpoint", "by-hand", "photo.png"))
    with hub_server(tmp_path / "cache", monkeypatch) as hub:
        add_published(hub, tmp_path / "hub", tiny_clip, gpt2_tokenizer, monkeypatch)
        run(monkeypatch, "coco", "--out", checkpoint)
    words = [tmp_path / "hub" / "coco_weights.pt", "--out", by_hand, "--clip", tiny_clip]
    run(monkeypatch, *words, "--gpt2-tokenizer", gpt2_tokenizer)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        assert (checkpoint / name).read_bytes() == (by_hand / name).read_bytes()
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
