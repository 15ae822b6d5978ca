"""Stages on another device than the CPU: what the settings name, and that no step mixes devices."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.options import GenerationOptions
from model.pretrained.hugging_face import load_clip
from model.refusal import Refusal
from tests.models import PREPROCESSING
from tests.other_device import Remote, moved, on_other_device
from tests.unit.training.test_clip import SMALL
from training.captioner.objectives.pair_prior import PairPrior
from training.config import Augmentation, Config, load_config
from training.contrastive.module import ContrastiveModule
from training.contrastive.regions import RegionHead, Regions
from training.device import chosen_device
from training.encoding.encode_dataset import encode_dataset
from training.evaluation.evaluate import evaluate
from training.evaluation.on_device import DeviceArtifact


def test_the_stand_in_finds_a_mix_and_leaves_the_rest_alone():
    there = Remote(torch.arange(4.0))
    assert on_other_device(lambda: there[there > 1].sum() * 2).item() == 10
    assert on_other_device(lambda: torch.ones(4, device=there.device) + there).sum() == 10
    assert (
        on_other_device(lambda: torch.ones(4).to(there.device) + there.clone().add_(1)).sum() == 14
    )
    for mix in (lambda: there + torch.ones(4), lambda: there[torch.tensor([1, 2])]):
        with pytest.raises(AssertionError, match="mixes a tensor of the CPU"):
            on_other_device(mix)


def test_every_step_of_clip_s_training_stays_on_its_device(tiny_clip: Path):
    settings = dataclasses.replace(
        load_config(SMALL).clip,
        region_weight=1.0,
        recolour=0.5,
        anchor_weight=1.0,
        hard_negatives=0.5,
        augmentation=Augmentation(0.3, 0.2, 1.0),
        captioner=dataclasses.replace(load_config(SMALL).clip.captioner, word_dropout=0.3),
    )
    clip = load_clip(str(tiny_clip), CLIPModel)
    head = RegionHead(clip.config.vision_config.hidden_size, 24, 4, 2, 2)
    texts = torch.tensor([[[1, 20, 21, 22, 0, 0]], [[1, 30, 0, 0, 0, 0]], [[1, 40, 41, 0, 0, 0]]])
    prior = PairPrior(texts.flatten(), [21, 41], 300)
    here = ContrastiveModule(clip, settings, PREPROCESSING, 0, head, [21, 41], prior).eval()
    pixels = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.9]]]).expand(3, 1, 4)
    label = torch.ones(3, 1, dtype=torch.long)
    there = moved(copy.deepcopy(here))
    found = []
    for module, place in ((here, lambda each: each), (there, Remote)):
        logged: dict[str, float] = {}
        module.log = lambda name, value, **_: logged.update({name: float(value)})  # noqa: B023
        module.log_dict = lambda values, **_: logged.update(  # noqa: B023
            {name: float(value) for name, value in values.items()}
        )
        batch = (place(pixels), place(texts), Regions(place(boxes), place(label), place(label)))
        torch.manual_seed(1)
        on_other_device(lambda: module.training_step(batch, 0))  # noqa: B023
        on_other_device(lambda: module.validation_step(batch, 0))  # noqa: B023
        on_other_device(module.on_validation_epoch_end)
        found.append(logged)
    assert {"contrastive", "caption", "region", "anchor", "image_to_text_R@1"} < found[0].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-6)


def test_captions_of_another_device_are_those_of_a_server(tiny_checkpoint: Path):
    checkpoint = Checkpoint.load(tiny_checkpoint)
    served, plain = eager_artifact(checkpoint), DeviceArtifact(checkpoint, torch.device("cpu"))
    pixels, options = torch.randn(3, 3, 32, 32), GenerationOptions(num_beams=3, num_captions=2)
    tokens = torch.tensor([[5, 6, 0]]).expand(3, 3)
    features = served.encode(pixels)
    torch.testing.assert_close(plain.encode(pixels), features, atol=1e-5, rtol=1e-4)
    expected = served.score(features, tokens)
    torch.testing.assert_close(plain.score(features, tokens), expected, atol=1e-4, rtol=1e-4)
    expected, _, _, _ = served.search(features, options)
    assert plain.search(features, options)[0].tolist() == expected.tolist()
    values = options.to_dict()
    del values["seed"], values["prompt"]
    characters = values.pop("max_characters")
    there = moved(plain.module)
    own, (found, _, _, _), _ = on_other_device(
        lambda: (
            there.encode(Remote(pixels)),
            there.caption(Remote(features), *values.values(), None, None, characters),
            there.score(Remote(features), Remote(tokens)),
        )
    )
    torch.testing.assert_close(own, features, atol=1e-5, rtol=1e-4)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("warp", "evaluate.device is 'warp'; it must be auto, or a device such as cpu, cuda"),
        ("meta", "evaluate.device is meta, but this machine has .*cpu.* only"),
    ],
)
def test_a_device_that_is_not_here_is_refused(tiny_run: Config, wanted: str, words: str):
    with pytest.raises(Refusal, match=words):
        evaluate(dataclasses.replace(tiny_run.evaluate, device=wanted))
    with pytest.raises(Refusal, match=words.replace("evaluate", "features")):
        encode_dataset(dataclasses.replace(tiny_run.features, device=wanted))


def test_auto_takes_the_accelerator_and_processes_share_its_devices(
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in (("current_accelerator", None), ("device_count", 0)):
        monkeypatch.setattr(torch.accelerator, name, lambda *_, value=value, **__: value)
    assert chosen_device("auto", "features.device") == torch.device("cpu")
    for name, value in (("current_accelerator", torch.device("cuda")), ("device_count", 2)):
        monkeypatch.setattr(torch.accelerator, name, lambda *_, value=value, **__: value)
    assert chosen_device("cpu", "features.device") == torch.device("cpu")
    assert chosen_device("auto", "features.device") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert chosen_device("cuda", "features.device") == torch.device("cuda:1")
    assert chosen_device("cuda:0", "features.device") == torch.device("cuda:0")
    with pytest.raises(Refusal, match=r"is cuda:2, .* has 2 of them, .* features.device=cuda:1 or"):
        chosen_device("cuda:2", "features.device")
