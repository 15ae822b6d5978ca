"""A captioner with random weights, a few hundred kilobytes: the same files as a real one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from training.config import Config

# Before torch is imported: threads that wait sleep, so that tests stay quick on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import model.pretrained  # noqa: E402, F401 - prepares the import of transformers

pytest_plugins = ("tests.databases",)
# A test that starts a gateway as `make serve` does must not write into the user's own feedback.
os.environ["GATEWAY_FEEDBACK"] = ""

# A machine that has other work to do must not fail a test: time is measured in benchmarks.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder. Its weights are large enough for pictures to get different captions."""
    import torch

    from model.checkpoint import Checkpoint
    from model.config import CaptionerConfig, MapperConfig
    from model.image.preprocessing import Preprocessing
    from model.network.captioner import ClipCap
    from model.ood_file import Ood
    from model.options import GenerationOptions
    from training.captioner.tokenizer import train_tokenizer
    from training.ood_score.fitting import fit

    tokenizer = train_tokenizer(["two red boats on a calm sea", "a bird over a snowy lake"], 300)
    config = CaptionerConfig(
        clip={
            "hidden_size": 32,
            "intermediate_size": 64,
            "projection_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        gpt2={
            "vocab_size": 300,
            "n_positions": 64,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "initializer_range": 0.3,
        },
        mapper=MapperConfig(prefix_length=4),
        preprocessing=Preprocessing(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
        feature_width=24,
        normalize_feature=False,
        end_token_id=0,
    )
    torch.manual_seed(7)
    captioner = ClipCap(config).eval()
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    with torch.no_grad():  # "training pictures" of noise, so any other picture is unusual
        features = captioner.encode(torch.randn(60, 3, 32, 32))
    ood = Ood(fit(features[:40], features[40:], groups=2, seed=1), {"groups": 2})
    checkpoint = Checkpoint(captioner, tokenizer, GenerationOptions(max_tokens=12), ood=ood)
    checkpoint.save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact folder exported from `tiny_checkpoint`."""
    from model.export import export_torchscript

    folder = tmp_path_factory.mktemp("tiny") / "artifact"
    export_torchscript(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_archive(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clipcap.mar` of that artifact, packed by the real command."""
    from training.archive import archive

    out = tmp_path_factory.mktemp("model_store") / "clipcap.mar"
    archive(tiny_artifact, out)
    return out


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 60 small scenes: 31 train, 10 val, 12 test, 7 compositional."""
    from training.config import load_config
    from training.prepare import prepare

    folder = tmp_path_factory.mktemp("tiny") / "scenes"
    shares = "{train: 0.5, val: 0.167, test: 0.2, compositional: 0.133}"
    settings = ["scenes.seed=3", "scenes.count=60", "scenes.sides=[64,80]"]
    prepare(load_config([*settings, f"scenes.fractions={shares}", f"scenes.out={folder}"]))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP folder with random weights."""
    from tests.models import save_clip

    return save_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def gpt2_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer; like GPT-2's, it writes the full stop as token 13."""
    from transformers import PreTrainedTokenizerFast

    from tests.models import WORDS
    from training.captioner.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = train_tokenizer(WORDS, 300, ())
    PreTrainedTokenizerFast(tokenizer_object=bpe).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(
    tiny_scenes: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Config:
    """Settings of a small run whose features are encoded and whose captioner is trained."""
    from training.captioner.train import train
    from training.config import load_config
    from training.encoding.encode_dataset import encode_dataset

    folder = tmp_path_factory.mktemp("tiny") / "run"
    config = load_config(
        [
            f"features.data={tiny_scenes}",
            f"features.clip={tiny_clip}",
            "features.kind=pooled",
            f"features.out={folder / 'features'}",
            "features.workers=0",
            f"train.data={tiny_scenes}",
            f"train.features={folder / 'features'}",
            f"train.out={folder / 'checkpoint'}",
            f"train.work={folder / 'work'}",
            f"train.curves={folder / 'curves'}",
            "train.mapper.kind=linear",
            "train.mapper.prefix_length=4",
            "train.pair_prior=[]",
            "train.captions_together=1",
            "train.gpt2.layers=1",
            "train.gpt2.width=32",
            "train.gpt2.heads=2",
            "train.gpt2.vocabulary=400",
            "train.epochs=2",
            "train.batch_size=32",
            "train.precision=32-true",
            f"evaluate.data={tiny_scenes}",
            f"evaluate.checkpoint={folder / 'checkpoint'}",
            f"evaluate.out={folder / 'reports'}",
            "evaluate.workers=0",
            "generation.max_tokens=10",
            "generation.num_beams=2",
        ]
    )
    encode_dataset(config.features)
    train(config)
    return config
