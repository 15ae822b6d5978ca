"""Hugging Face's folders: the preprocessing is theirs, and mistakes are one line."""

from __future__ import annotations

import http.server
import json
import random
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModelWithProjection,
)

from model.image.preprocessing import Preprocessing, to_pixels
from model.pretrained.hugging_face import load_clip, load_gpt2_tokenizer, only_local
from model.pretrained.preprocessor_config import read_preprocessing, write_preprocessing
from model.refusal import Refusal
from training.captioner.tokenizer import train_tokenizer
from training.scenes import draw_scene, sample_scene

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
KINDS = [
    Preprocessing(32, MEAN, STD),
    Preprocessing(48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear"),
    Preprocessing(32, MEAN, STD, crop=False),
]
#: As published with OpenAI's ViT-B/32, and its newer and older spellings.
PUBLISHED: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
    "size": {"shortest_edge": 224},
}


@pytest.fixture
def folder(tiny_clip: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_clip, tmp_path / "clip")


def write_fields(folder: Path, **changes: Any) -> None:
    fields = {key: value for key, value in {**PUBLISHED, **changes}.items() if value != "absent"}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("preprocessing", KINDS, ids=str)
def test_what_is_written_is_read_back(preprocessing: Preprocessing, folder: Path):
    write_preprocessing(preprocessing, folder)
    assert read_preprocessing(str(folder)) == preprocessing


@pytest.mark.parametrize("preprocessing", KINDS, ids=str)
def test_hugging_face_makes_the_same_pixels_from_the_same_folder(
    preprocessing: Preprocessing, folder: Path
):
    write_preprocessing(preprocessing, folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    rng = random.Random(1)
    for size in ((90, 70), (64, 97), (48, 48)):
        picture = draw_scene(sample_scene(rng, "test"), *size)
        expected = processor(picture, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(to_pixels(picture, preprocessing), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_size": 224, "size": 224},
        {"crop_size": "absent", "size": {"height": 224, "width": 224}},
        {"resample": "absent", "do_center_crop": "absent"},
    ],
)
def test_the_published_spellings_are_understood(folder: Path, changes: dict[str, Any]):
    write_fields(folder, **changes)
    assert read_preprocessing(str(folder)) == Preprocessing(224, MEAN, STD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resample": 1}, r"resample is 1; it must be 2 \(bilinear\) or 3 \(bicubic\)"),
        ({"size": {"shortest_edge": 256}}, "resizes to 256 and crops to 224; .* must be equal"),
        ({"image_mean": "absent"}, "lacks 'image_mean'"),
        ({"crop_size": {"height": 224, "width": 200}}, "224 x 200; it must be a square"),
    ],
)
def test_a_preprocessing_that_is_not_ours_is_refused(
    folder: Path, changes: dict[str, Any], words: str
):
    write_fields(folder, **changes)
    with pytest.raises(Refusal, match=words):
        read_preprocessing(str(folder))


def test_a_processor_that_was_saved_whole_is_understood(folder: Path):
    write_preprocessing(KINDS[1], folder)
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    whole = CLIPProcessor(image_processor, AutoTokenizer.from_pretrained(folder))
    (folder / "preprocessor_config.json").unlink()
    whole.save_pretrained(folder)
    assert (folder / "processor_config.json").exists()
    assert not (folder / "preprocessor_config.json").exists()
    assert read_preprocessing(str(folder)) == KINDS[1]


@pytest.mark.parametrize("content", [None, "{"])
def test_a_missing_or_damaged_preprocessing_is_one_line(folder: Path, content: str | None):
    file = folder / "preprocessor_config.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(Refusal, match=r"preprocessor_config\.json") as caught:
        read_preprocessing(str(folder))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", [CLIPModel, CLIPVisionModelWithProjection])
def test_a_folder_is_loaded_in_full_precision(tiny_clip: Path, kind: type):
    stored = load_file(tiny_clip / "model.safetensors")
    model = load_clip(str(tiny_clip), kind)
    assert isinstance(model, kind)
    for name, value in model.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        if name in stored:
            assert torch.equal(value, stored[name])
    assert "visual_projection.weight" in model.state_dict()


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path):
    name = str(tmp_path / "nowhere")
    with pytest.raises(Refusal, match="Give a folder made by save_pretrained") as caught:
        load_clip(name, CLIPModel)
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_cannot_be_found_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Refusal, match="encoder at 'no-such-person/no-such-clip'") as caught:
        load_clip("no-such-person/no-such-clip", CLIPModel)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_out_of_reach_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as nobody:  # bound, so that no other takes the port, but not listening
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waits to try again"))
        with pytest.raises(Refusal, match="encoder at 'no-such-person/no-such-clip'"):
            load_clip("no-such-person/no-such-clip", CLIPModel)
        with pytest.raises(Refusal, match="no GPT-2 tokenizer at 'no-such-gpt2'"):
            load_gpt2_tokenizer("no-such-gpt2")


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_hub_that_answers_is_left_to_the_library(status: int, monkeypatch: pytest.MonkeyPatch):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # noqa: N802
            self.send_response(status)
            self.end_headers()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
        )
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert not only_local("no-such-person/no-such-clip")


@pytest.mark.parametrize("damage", ["missing", "cut", "lacking", "misshapen"])
def test_weights_that_do_not_fill_the_model_are_one_line(folder: Path, damage: str):
    file = folder / "model.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        weights = load_file(file)
        name = "vision_model.encoder.layers.0.mlp.fc1.bias"
        bias = weights.pop(name)
        if damage == "misshapen":
            weights[name] = torch.cat([bias, bias])
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(Refusal) as caught:
        load_clip(str(folder), CLIPModel)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_tokenizer_is_read_from_either_kind_of_files(tmp_path: Path):
    own = train_tokenizer(["two red boats on a calm sea"], 300, ())
    own.save(str(tmp_path / "tokenizer.json"))
    assert load_gpt2_tokenizer(str(tmp_path)).to_str() == own.to_str()
    (tmp_path / "tokenizer.json").unlink()
    own.model.save(str(tmp_path))  # vocab.json and merges.txt
    with pytest.raises(
        Refusal, match=r"no GPT-2 tokenizer in it; .* config\.json, vocab\.json and"
    ):
        load_gpt2_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    tokens = load_gpt2_tokenizer(str(tmp_path)).encode(" red boats").ids
    assert own.decode(tokens) == " red boats"
