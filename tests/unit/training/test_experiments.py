"""Every experiment file trains: its settings fit each other and what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from model.refusal import Refusal
from tests.models import save_clip, save_gpt2
from training import config as settings
from training.captioner.train import train
from training.config import load_config
from training.encoding.encode_dataset import encode_dataset

NAMES = sorted(
    file.stem for file in (Path(settings.__file__).parent / "conf" / "experiment").iterdir()
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CLIP and a GPT-2, small but for their room for captions."""
    folder = tmp_path_factory.mktemp("bases")
    return save_clip(folder / "clip"), save_gpt2(folder / "gpt2", positions=128)


def test_there_is_one_for_each_kind_of_user():
    assert NAMES == ["coco-mlp", "coco-transformer", "folder", "scenes"]


@pytest.mark.parametrize("name", NAMES)
def test_its_stages_hand_on_to_each_other(name: str):
    config = load_config([f"experiment={name}"])
    source = getattr(config, config.prepare.source)
    assert source.out == config.features.data == config.train.data == config.evaluate.data
    assert config.features.out == config.train.features
    assert config.train.out == config.evaluate.checkpoint == config.export.checkpoint


def test_no_two_write_to_the_same_place():
    places = [
        place
        for config in (load_config([f"experiment={name}"]) for name in NAMES)
        for place in (config.features.out, config.train.out, config.train.work, config.train.curves,
                      config.evaluate.out, config.export.out, config.archive.out)
    ]  # fmt: skip
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(
    name: str,
    bases: tuple[Path, Path],
    tiny_scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    clip, gpt2 = bases
    own = [f"features.clip={clip}", f"train.gpt2.base={gpt2}"]
    if name == "scenes":  # is small itself
        own = [f"features.clip={Path(load_config().features.clip).resolve()}"]
    config = load_config([f"experiment={name}", *own, "train.epochs=1"])
    monkeypatch.chdir(tmp_path)
    Path(config.train.data).parent.mkdir()
    Path(config.train.data).symlink_to(tiny_scenes)
    encode_dataset(config.features)
    train(config)
    made = Checkpoint.load(config.evaluate.checkpoint).captioner.config
    wanted = config.train.mapper
    assert (made.mapper.kind, made.mapper.prefix_length) == (wanted.kind, wanted.prefix_length)
    assert made.normalize_feature == (name == "coco-transformer")


def test_the_paper_s_figures_are_in_the_coco_files():
    mlp, transformer = (load_config([f"experiment=coco-{kind}"]) for kind in ("mlp", "transformer"))
    for config in (mlp, transformer):
        assert (config.train.learning_rate, config.train.batch_size, config.train.epochs) == (
            2e-5, 40, 10
        )  # fmt: skip
        assert config.coco.restval_to_train
        assert config.evaluate.splits == ["test"]
    assert (mlp.train.tuning, transformer.train.tuning) == ("full", "frozen")
    assert vars(transformer.train.mapper) == {
        "kind": "transformer", "prefix_length": 40, "clip_length": 40, "layers": 8, "heads": 8
    }  # fmt: skip


def test_what_is_set_on_the_command_line_comes_last():
    config = load_config(["train.epochs=2", "experiment=coco-mlp", "train.batch_size=8"])
    assert (config.train.epochs, config.train.batch_size) == (2, 8)


def test_an_unknown_experiment_is_one_line_with_those_there_are():
    with pytest.raises(Refusal) as caught:
        load_config(["experiment=flickr"])
    message = str(caught.value)
    assert "experiment/flickr" in message
    assert ", ".join(NAMES) in message
    assert len(message.splitlines()) == 1
