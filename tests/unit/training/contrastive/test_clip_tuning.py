"""CLIP tuned through the caption loss: what learns, how fast, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.hugging_face import load_clip
from model.refusal import Refusal
from tests.interruption import power_cut
from tests.models import PREPROCESSING, small_config
from training.captioner.data import CaptionBatch
from training.captioner.module import CaptionerModule
from training.captioner.train import train
from training.captioner.tuning import CLIP, merged, tunable
from training.config import Config, Lora, Train
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder

LORA = Lora(rank=2, alpha=4, dropout=0.1)
LINEAR = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
Variant = Callable[..., Config]


def tuned(settings: Train, tuning: str, **changes: Any) -> Train:
    """These settings with another tuning of CLIP."""
    return dataclasses.replace(
        settings, clip=dataclasses.replace(settings.clip, tuning=tuning, **changes)
    )


def moved(model: nn.Module) -> None:
    """Fill LoRA's second matrices, which begin at zero, as if they had learned."""
    for name, value in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.3)


def module_of(settings: Train, clip: Path) -> CaptionerModule:
    captioner = ClipCap(small_config(feature_width=24))
    captioner.clip = Encoder(str(clip)).model
    module = CaptionerModule(captioner, settings, list, lambda _: 0.0)
    module.trainer = pl.Trainer(
        accelerator="cpu", max_steps=10, logger=False, enable_checkpointing=False
    )
    return module


def example() -> CaptionBatch:
    """Two pictures, the second with two captions."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.tensor([[5, 6, 0], [7, 0, -100], [8, 9, 0]])
    return pixels, torch.tensor([0, 1, 1]), labels


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_what_is_tuned_learns_at_its_own_rate_and_nothing_else_does(
    tiny_run: Config, tiny_clip: Path, tuning: str
):
    module = module_of(tuned(tiny_run.train, tuning, learning_rate=2e-4, lora=LORA), tiny_clip)
    captioner = module.captioner
    moved(captioner)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.training_step(example(), 0).backward()
    learned = {name: p for name, p in captioner.named_parameters() if p.grad is not None}
    assert all(bool(p.grad.any()) for name, p in learned.items() if "k_proj.bias" not in name)
    of_clip = {name for name in learned if name.startswith("clip.")}
    if tuning == "lora":
        assert all(".lora_" in name for name in of_clip)
        assert len(of_clip) == len(LINEAR) * 2  # one layer of the encoder, two matrices each
    else:
        assert len(of_clip) == len(list(Encoder(str(tiny_clip)).model.parameters()))
    rates = {}
    names = {id(p): name for name, p in captioner.named_parameters()}
    for group in module.configure_optimizers()["optimizer"].param_groups:
        for p in group["params"]:
            rates[names[id(p)]] = group["initial_lr"]
            assert group["weight_decay"] == (tiny_run.train.weight_decay if p.ndim > 1 else 0)
    assert rates == {n: 2e-4 if n in of_clip else tiny_run.train.learning_rate for n in learned}


def test_a_picture_is_encoded_once_for_all_its_captions(tiny_run: Config, tiny_clip: Path):
    module = module_of(tuned(tiny_run.train, "full"), tiny_clip).eval()
    captioner, sizes = module.captioner, []
    encode = captioner.encode
    captioner.encode = lambda p: sizes.append(len(p)) or encode(p)  # type: ignore
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    pixels, owners, labels = example()
    with torch.inference_mode():
        found = module.training_step((pixels, owners, labels), 0)
        assert sizes == [2]
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESSING.mean, PREPROCESSING.std))
        alone = torch.stack([(pixels[owner] / 255 - mean) / std for owner in owners])
        expected = captioner(encode(alone), labels)
    torch.testing.assert_close(found, expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_lora_merged_is_a_plain_encoder_that_computes_the_same(tiny_clip: Path, kind: str):
    plain: Any = load_clip(str(tiny_clip), CLIPVisionModelWithProjection)
    if kind == "siglip":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        places = {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
        plain = SiglipVisionModel(SiglipVisionConfig(**sizes, **places))
    plain.eval()
    names = set(plain.state_dict())
    layers = plain.config.num_hidden_layers
    pixels = torch.randn(2, 3, 32, 32)

    def feature(model: Any) -> Tensor:
        found = model(pixel_values=pixels)
        return found.image_embeds if kind == "clip" else found.pooler_output

    untuned = feature(plain)
    wrapped = tunable(plain, "lora", LORA, CLIP).eval()
    torch.testing.assert_close(feature(wrapped), untuned)  # nothing is learned yet
    matrices = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert len(matrices) == layers * len(LINEAR) * 2
    assert all(".layers." in name and ".lora_" in name for name in matrices)
    moved(wrapped)
    expected = feature(wrapped)
    assert (expected - untuned).abs().max() > 0.01
    one = merged(wrapped)
    assert type(one) is (CLIPVisionModelWithProjection if kind == "clip" else SiglipVisionModel)
    assert set(one.state_dict()) == names
    torch.testing.assert_close(feature(one), expected, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def variant(tiny_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """The settings of the small run with CLIP tuned by LoRA, without a feature file."""
    folder = tmp_path_factory.mktemp("tuned")

    def change(name: str, **changes: Any) -> Config:
        clip = {"lora": LORA, "learning_rate": 0.01, "pixels": str(folder / "pixels")}
        settings = dataclasses.replace(
            tuned(tiny_run.train, "lora", **clip, workers=0),
            features=str(folder / "none"),
            out=str(folder / name / "checkpoint"),
            work=str(folder / name / "work"),
            curves=str(folder / name / "curves"),
            **changes,
        )
        return dataclasses.replace(tiny_run, train=settings)

    return change


@pytest.fixture(scope="module")
def whole(variant: Variant) -> tuple[Config, list[dict[int, str]]]:
    """A run of two epochs, the second scored better, and what was scored."""
    scored: list[dict[int, str]] = []

    def score(generated: dict[int, str], _: object) -> float:
        scored.append(generated)
        return float(len(scored))

    config = variant("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.captioner.train.cider", score)
        train(config)
    return config, scored


def pixels_of(dataset: CaptionDataset, split: str) -> Tensor:
    """The pictures of a split as serving sees them."""
    files = [dataset.files[i] for i in dataset.ids(split)]
    return torch.stack([to_pixels(load_image(f.read_bytes()), PREPROCESSING) for f in files])


def test_the_checkpoint_holds_the_tuned_clip_and_the_statistics_of_its_features(
    whole: tuple[Config, list[dict[int, str]]], tiny_clip: Path
):
    config, scored = whole
    checkpoint = Checkpoint.load(config.train.out)
    clip = checkpoint.captioner.clip
    assert clip is not None
    before, after = Encoder(str(tiny_clip)).model.state_dict(), clip.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        change = after[name] - value
        learned = ".layers." in name and name.endswith(tuple(f"{k}.weight" for k in LINEAR))
        assert bool(change.any()) == learned, name
        if learned:
            assert torch.linalg.matrix_rank(change, rtol=1e-3) <= LORA.rank
    dataset = CaptionDataset.load(config.train.data)
    statistics = checkpoint.training_features
    assert statistics is not None
    with torch.inference_mode():
        own = checkpoint.captioner.encode(pixels_of(dataset, "train")).numpy()
        val = checkpoint.captioner.encode(pixels_of(dataset, "val"))
    assert statistics["count"] == len(own)
    np.testing.assert_allclose(statistics["mean"], own.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics["std"], own.std(0), atol=1e-5)
    artifact = eager_artifact(checkpoint)
    greedy = GenerationOptions(num_beams=1, max_tokens=40)
    expected = [captions[0].text for captions in artifact.caption(val, greedy)]
    assert [" ".join(text.split()) for text in scored[1].values()] == expected


def test_resumed_it_ends_where_an_uninterrupted_run_does(
    whole: tuple[Config, list[dict[int, str]]], variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    scores = iter((1.0, 2.0))
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(scores))
    with power_cut(monkeypatch, at=7):  # 5 steps an epoch
        train(variant("cut"))
    resumed = variant("cut", resume=True)
    other = dataclasses.replace(resumed, train=tuned(resumed.train, "full"))
    with pytest.raises(Refusal, match=r"other settings: train.clip.tuning was lora, is full; set"):
        train(other)
    train(resumed)
    expected, found = (
        Checkpoint.load(c.train.out).captioner.state_dict() for c in (whole[0], resumed)
    )
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize(
    ("tuning", "changes", "words"),
    [
        ("some", {}, "train.clip.tuning is 'some'; it must be full, frozen or lora"),
        ("full", {"learning_rate": 0.0}, "train.clip.learning_rate is 0.0; it must be above 0"),
        ("full", {"workers": -1}, "train.clip.workers is -1; it must be at least 0"),
        ("full", {"max_pixels": 0}, "train.clip.max_pixels is 0; it must be at least 1"),
        ("full", {"max_pixels": 9}, r"images/.*: the picture has .* limit is 45; .*mend or remove"),
        ("lora", {"lora": Lora(0, 16, 0)}, "train.clip.lora.rank is 0; it must be at least 1"),
    ],
)
def test_tunings_that_cannot_be_are_refused(
    tiny_run: Config, tmp_path: Path, tuning: str, changes: dict[str, Any], words: str
):
    places = {"pixels": str(tmp_path / "pixels"), "workers": 0}
    settings = tuned(tiny_run.train, tuning, **{**places, **changes})
    with pytest.raises(Refusal, match=words):
        train(dataclasses.replace(tiny_run, train=settings))


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(
        Refusal, match=r"Sequential has no layers .* tune all of it \(full\) or none"
    ):
        tunable(nn.Sequential(nn.Linear(2, 2)), "lora", LORA, CLIP)
