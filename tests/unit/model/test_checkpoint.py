"""Checkpoint folders: what is saved is what is loaded, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model.checkpoint import Checkpoint, weights_sha256
from model.config import MapperConfig
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.refusal import Refusal
from tests.models import WORDS, small_config
from training.captioner.tokenizer import train_tokenizer


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def change_json(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def change_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors; None takes one away."""
    weights = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: value for name, value in weights.items() if value is not None}
    save_file(kept, folder / "model.safetensors")


def tokenizer() -> Tokenizer:
    return train_tokenizer(WORDS, 300)


@pytest.mark.parametrize("kind", ["mlp", "transformer", "linear", "patch"])
def test_a_round_trip_changes_nothing(kind: str, tmp_path: Path):
    config = small_config(
        mapper=MapperConfig(kind, 3, clip_length=2, layers=1, heads=2),
        gpt2={**small_config().gpt2, "vocab_size": 300},
        end_token_is_text=True,
    )
    generation = GenerationOptions(3, 2, max_tokens=9, min_tokens=1, length_penalty=-0.5)
    statistics = {"count": 4, "mean": [0.5], "std": [0.1]}
    saved = Checkpoint(ClipCap(config).eval(), tokenizer(), generation, statistics)
    saved.save(tmp_path / "one")
    loaded = Checkpoint.load(tmp_path / "one")
    assert loaded.captioner.config == config
    assert loaded.generation == generation
    assert loaded.training_features == statistics
    assert loaded.tokenizer.to_str() == saved.tokenizer.to_str()
    assert not loaded.captioner.training
    before, after = saved.captioner.state_dict(), loaded.captioner.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded.save(tmp_path / "two")
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")


def test_the_output_layer_is_stored_once_and_tied_again(tiny_checkpoint: Path):
    assert "gpt2.lm_head.weight" not in load_file(tiny_checkpoint / "model.safetensors")
    gpt2 = Checkpoint.load(tiny_checkpoint).captioner.gpt2
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(Refusal, match=f"{name} is missing"):
        Checkpoint.load(folder)


def test_without_generation_config_the_usual_options_hold(folder: Path):
    (folder / "generation_config.json").unlink()
    assert Checkpoint.load(folder).generation == GenerationOptions()


def test_hugging_face_s_other_generation_settings_are_left_alone(folder: Path):
    change_json(folder / "generation_config.json", num_beams=4, pad_token_id=0, min_new_tokens=None)
    assert Checkpoint.load(folder).generation == GenerationOptions(4, max_tokens=12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mapper.model.0.bias": None}, r"1 tensors missing \(first \['mapper.model.0.bias'\]\)"),
        ({"mapper.extra": torch.zeros(2)}, r"1 unknown \(first \['mapper.extra'\]\)"),
        ({"mapper.model.0.bias": torch.zeros(3)}, r"mapper.model.0.bias is \[3\], config.json ask"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    folder: Path, changes: dict[str, torch.Tensor | None], words: str
):
    change_weights(folder, changes)
    with pytest.raises(Refusal, match=words):
        Checkpoint.load(folder)


@pytest.mark.parametrize("where", ["clip.num_hidden_layers", "gpt2.n_layer", "mapper.layers"])
def test_more_layers_than_could_ever_be_built_are_refused(folder: Path, where: str):
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    part, name = where.split(".")
    fields[part][name] = 10**30
    file.write_text(json.dumps(fields))
    with pytest.raises(Refusal, match=rf"config.json: {name} is 10+; the limit is 1000"):
        Checkpoint.load(folder)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_weights_are_refused(folder: Path, damage: str):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "text": b"version https://git-lfs",
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(Refusal, match=r"model.safetensors is damaged: .*; take a fresh copy"):
        Checkpoint.load(folder)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(folder: Path):
    words = (f"a{number} b{number}" for number in range(400))
    train_tokenizer(words, 400).save(str(folder / "tokenizer.json"))
    with pytest.raises(Refusal, match="tokenizer.json has 400 tokens, but the model only 300"):
        Checkpoint.load(folder)


@pytest.mark.parametrize("content", ["{", '{"model": 3}', ""])
def test_a_damaged_tokenizer_is_refused(folder: Path, content: str):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(Refusal, match="tokenizer.json is no tokenizer"):
        Checkpoint.load(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ['{"a": ', "", "[1, 2]", b"\xff\xfe\x00"])
def test_a_damaged_json_file_is_refused_by_name(folder: Path, name: str, content: str | bytes):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    with pytest.raises(Refusal, match=name):
        Checkpoint.load(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "gpt2"}, "config.json has model_type 'gpt2'; a captioner's is 'clipcap'"),
        ({"colour": "red"}, "config.json does not fit this version: .*colour"),
        ({"mapper": {"kind": "mlp", "depth": 3}}, "config.json does not fit this version: .*depth"),
        ({"mapper": {"kind": "cnn"}}, "mapper.kind is 'cnn'"),
        ({"preprocessing": {"size": 32}}, "config.json does not fit this version: .*mean"),
        ({"end_token_id": 300}, "end_token_id is 300; .* 300 tokens"),
        ({"feature_width": 25}, "feature_width is 25, .* 24"),
        ({"mapper": {"kind": "patch", "prefix_length": 4}, "feature_width": 32}, "has 16 patches"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, fields: dict[str, Any], words: str):
    change_json(folder / "config.json", **fields)
    with pytest.raises(Refusal, match=words):
        Checkpoint.load(folder)


def test_a_config_without_a_field_is_refused(folder: Path):
    fields = json.loads((folder / "config.json").read_text())
    del fields["end_token_id"]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(Refusal, match="does not fit this version: .*end_token_id"):
        Checkpoint.load(folder)


def test_an_encoder_for_pictures_of_another_size_is_refused(folder: Path):
    fields = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", preprocessing={**fields["preprocessing"], "size": 40})
    with pytest.raises(Refusal, match="preprocessing makes 40 pixels, the encoder takes 32"):
        Checkpoint.load(folder)


def test_generation_settings_out_of_range_are_refused(folder: Path):
    change_json(folder / "generation_config.json", num_beams=99)
    words = "num_beams is '99'; it must be a whole number from 1 to 8"
    with pytest.raises(Refusal, match=rf"generation_config\.json: .*{words}"):
        Checkpoint.load(folder)


def test_more_tokens_than_the_language_model_has_places_for_are_refused(folder: Path):
    change_json(folder / "generation_config.json", max_new_tokens=61)
    with pytest.raises(Refusal, match="61 tokens behind a prefix of 4, .* 64 positions"):
        Checkpoint.load(folder)


def test_a_save_that_fails_leaves_the_old_folder_as_it_was(folder: Path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    checkpoint = Checkpoint.load(folder)
    with torch.no_grad():
        checkpoint.captioner.gpt2.transformer.wte.weight.add_(1)
    checkpoint.training_features = {"mean": object()}  # JSON has no word for it
    with pytest.raises(TypeError):
        checkpoint.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_save_takes_the_place_of_an_older_folder_whole(folder: Path):
    (folder / "training_features.json").write_text("{}")
    checkpoint = Checkpoint.load(folder)
    checkpoint.training_features = None
    checkpoint.save(folder)
    assert not (folder / "training_features.json").exists()
    assert [file.name for file in folder.parent.iterdir()] == ["checkpoint"]


def test_what_the_pipeline_leaves_of_an_older_one_is_no_obstacle(
    tiny_checkpoint: Path, tmp_path: Path
):
    """Before it trains anew, dvc removes training's files and leaves the evaluation's."""
    (tmp_path / "README.md").touch()
    (tmp_path / "evaluation.json").touch()
    Checkpoint.load(tiny_checkpoint).save(tmp_path)
    assert Checkpoint.load(tmp_path).card is None
