"""Captions of an artifact without TorchServe: the reference for what a server answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.artifact import Artifact
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from tests import ROOT
from training import try_artifact

PICTURES = [ROOT / "docs" / "sample.jpg", ROOT / "deploy" / "golden" / "turned.jpg"]


def test_each_picture_gets_the_caption_of_the_artifact(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["try_artifact", str(tiny_artifact), *map(str, PICTURES)])
    try_artifact.main()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    artifact = Artifact.load(tiny_artifact)
    used = artifact.preprocessing  # a server decodes a JPEG for this size
    images = [load_image(each.read_bytes(), side=used.size) for each in PICTURES]
    pixels = torch.stack([to_pixels(image, used) for image in images])
    captions = artifact.caption(artifact.encode(pixels), artifact.defaults)
    assert [each["caption"] for each in found] == [best.text for best, *_ in captions]
    assert len({each["caption"] for each in found}) == len(PICTURES)
    for each, (best, *_) in zip(found, captions, strict=True):
        assert each["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
        assert each["tokens"] == best.tokens
