"""Training the captioner, small but whole: what is learned, kept, resumed and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from model.checkpoint import Checkpoint
from model.config import MapperConfig
from model.export import eager_artifact
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.completion import complete
from model.pretrained.weights_file import read_published
from model.refusal import Refusal
from tests import ROOT
from tests.interruption import power_cut
from tests.models import save_clip, save_gpt2, small_config
from tests.training_runs import Variant, rows, weights
from training.captioner.data import CaptionBatch
from training.captioner.module import CaptionerModule, batch_seed
from training.captioner.tokenizer import END
from training.captioner.train import train
from training.config import Config
from training.data.dataset import CaptionDataset
from training.data.seen_images import count_seen
from training.encoding.encode_dataset import encode_dataset
from training.encoding.encoder import Encoder
from training.encoding.feature_file import FeatureFile
from training.evaluation.captioning import caption_split
from training.evaluation.report.model_card import write_card


def trainer_of(steps: int) -> pl.Trainer:
    """Lightning's trainer of a training of so many optimiser steps."""
    return pl.Trainer(accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False)


def test_the_checkpoint_holds_the_captioner_with_its_encoder(tiny_run: Config):
    checkpoint = Checkpoint.load(tiny_run.train.out)
    captioner, encoder = checkpoint.captioner, Encoder(tiny_run.features.clip)
    assert captioner.clip is not None
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(captioner.clip.state_dict()[name], value)
    assert captioner.config.preprocessing == encoder.preprocessing
    assert captioner.config.end_token_id == checkpoint.tokenizer.token_to_id(END)
    assert captioner.gpt2.config.vocab_size == checkpoint.tokenizer.get_vocab_size()
    assert checkpoint.generation == GenerationOptions(2, max_tokens=10)


def test_statistics_of_the_training_features_travel_with_it(tiny_run: Config):
    statistics = Checkpoint.load(tiny_run.train.out).training_features
    file = FeatureFile(tiny_run.train.features)
    own = file.features[file.rows(CaptionDataset.load(tiny_run.train.data).ids("train"))]
    assert statistics is not None
    assert statistics["count"] == len(own) == 31
    np.testing.assert_allclose(statistics["mean"], own.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics["std"], own.std(0), atol=1e-5)


def test_the_loss_falls_and_is_kept_as_curves(tiny_run: Config):
    validation = rows(Path(tiny_run.train.curves) / "validation.csv")
    assert [row["epoch"] for row in validation] == ["0", "1"]
    assert float(validation[1]["val_loss"]) < float(validation[0]["val_loss"])
    assert all(0 <= float(row["val_CIDEr"]) <= 10 for row in validation)
    assert rows(Path(tiny_run.train.curves) / "loss.csv")


def test_what_was_trained_captions_pictures(tiny_run: Config):
    artifact = eager_artifact(Checkpoint.load(tiny_run.train.out))
    features = torch.from_numpy(FeatureFile(tiny_run.train.features).features[:2].copy())
    assert [len(each) for each in artifact.caption(features, artifact.defaults)] == [1, 1]


@pytest.mark.usefixtures("no_score")
def test_a_seed_gives_the_same_weights_and_another_one_others(variant: Variant):
    found = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        config = variant(name, seed=seed, epochs=1)
        train(config)
        found.append(weights(config.train.out)["mapper.linear.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.usefixtures("no_score")
def test_another_training_keeps_what_the_user_wrote_into_the_model_card(
    variant: Variant, tiny_run: Config
):
    config = variant(epochs=1)
    train(config)
    folder = Path(config.train.out)
    assert not (folder / "README.md").exists()  # the evaluation writes it
    dataset = CaptionDataset.load(config.train.data)
    checkpoint = Checkpoint.load(folder)
    file = write_card(folder, checkpoint, dataset, {"test": {"CIDEr": 3.62}})
    text = file.read_text().replace("---\n", "---\nlicense: mit\n", 1)
    file.write_text(text.replace("## How to use it", "My own words.\n\n## How to use it"))
    assert "| seed | 1 |" in text
    assert "3.620" in text
    train(variant(epochs=1, seed=23))
    card = ModelCard.load(file)
    assert card.data.license == "mit"
    assert card.data.eval_results is None
    assert "My own words.\n\n## How to use it" in card.text
    assert "| seed | 23 |" in card.text
    assert "| seed | 1 |" not in card.text
    assert "3.620" not in card.text  # of the weights that were replaced
    assert "Figures on" not in card.text
    write_card(folder, Checkpoint.load(folder), dataset, {"test": {"CIDEr": 1.25}})
    assert "1.250" in file.read_text()
    assert "My own words." in file.read_text()


def test_a_damaged_model_card_is_refused_before_the_training(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    config = variant()
    file = Path(config.train.out) / "README.md"
    file.parent.mkdir(parents=True)
    file.write_text("---\n- a\n- list\n---\n# Mine\n")
    monkeypatch.delattr(CaptionerModule, "training_step")
    with pytest.raises(Refusal, match=r"the metadata of .*README.md, .* cannot be read: .*mend"):
        train(config)
    assert file.read_text().endswith("# Mine\n")


def test_nothing_to_resume_from_is_refused(variant: Variant):
    config = variant(resume=True)
    with pytest.raises(Refusal, match=r"train.resume is true but .*last.ckpt does not exist; star"):
        train(config)


def test_a_damaged_run_is_not_gone_on_with(variant: Variant, tiny_run: Config):
    config = variant(resume=True)
    file = Path(config.train.work) / "last.ckpt"
    file.parent.mkdir(parents=True)
    whole = (Path(tiny_run.train.work) / "last.ckpt").read_bytes()
    for content in (whole[:5000], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(Refusal, match=r"last.ckpt is damaged \(.*\); start anew") as caught:
            train(config)
        assert len(str(caught.value).splitlines()) == 1


def test_a_run_that_cannot_be_read_is_not_called_damaged(variant: Variant):
    config = variant(resume=True)
    (Path(config.train.work) / "last.ckpt").mkdir(parents=True)
    with pytest.raises(Refusal, match=r"last.ckpt cannot be read \(Is a directory\); make it read"):
        train(config)


@pytest.mark.usefixtures("no_score")
def test_a_run_is_not_resumed_with_other_settings(
    variant: Variant, tiny_run: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with power_cut(monkeypatch, at=5):
        train(variant())
    file = Path(variant().train.work) / "last.ckpt"
    data = shutil.copytree(tiny_run.train.data, tmp_path / "scenes")
    splits = json.loads((data / "split.json").read_text())
    (data / "split.json").write_text(json.dumps({**splits, "val": splits["val"][1:]}))
    for changes, words in (
        ({"epochs": 4}, "train.epochs was 2, is 4"),
        (
            {"learning_rate": 0.5, "seed": 9},
            "train.learning_rate was 0.003, is 0.5; train.seed was 1, is 9",
        ),
        (
            {"trainer": {**tiny_run.train.trainer, "accumulate_grad_batches": 2}},
            "train.trainer.accumulate_grad_batches was not set, is 2",
        ),
        (
            {"mapper": dataclasses.replace(tiny_run.train.mapper, prefix_length=5)},
            "train.mapper.prefix_length was 4, is 5",
        ),
        ({"data": str(data)}, "SHA-256 of split.json was"),
    ):
        with pytest.raises(Refusal) as caught:
            train(variant(**changes, resume=True))
        message = f"train.resume is true but {file} is of a run with other settings: {words}"
        assert str(caught.value).startswith(message)
        assert str(caught.value).endswith(
            "; set them as they were, or start anew with train.resume=false"
        )
    same = shutil.copytree(tiny_run.train.data, tmp_path / "moved")
    train(
        variant(
            data=str(same), resume=True, trainer={"accelerator": "auto", **tiny_run.train.trainer}
        )
    )


@pytest.mark.usefixtures("no_score")
def test_a_checkpoint_without_the_settings_of_its_run_is_not_resumed(variant: Variant):
    config = variant()
    train(config)
    file = Path(config.train.work) / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    del saved["settings"]
    torch.save(saved, file)
    with pytest.raises(Refusal, match=r"last.ckpt does not hold the settings of its run, .* older"):
        train(variant(resume=True))


@pytest.mark.usefixtures("no_score")
def test_a_run_that_ended_can_be_saved_again(variant: Variant):
    config = variant()
    train(config)
    before, record = weights(config.train.out), Checkpoint.load(config.train.out).training
    train(variant(resume=True))  # as after a power cut between the training and its saving
    after = weights(config.train.out)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert Checkpoint.load(config.train.out).training == record


@pytest.mark.usefixtures("no_score")
def test_a_new_run_moves_an_interrupted_one_aside_and_replaces_one_that_ended(
    variant: Variant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = Path(variant().train.work)
    for name in ("work.previous", "work.previous-2"):
        with power_cut(monkeypatch, at=7):
            train(variant())
        kept = (work / "last.ckpt").read_bytes()
        with power_cut(monkeypatch, at=0):
            train(variant())
        assert (work.with_name(name) / "last.ckpt").read_bytes() == kept
        note = capsys.readouterr().err
        assert f"note: {work} held an interrupted run, which train.resume=true would have" in note
        assert f"moved to {work.with_name(name)}." in note
    train(variant())
    train(variant())
    assert "moved" not in capsys.readouterr().err
    assert sorted(each.name for each in work.parent.iterdir()) == [
        "checkpoint",
        "curves",
        "work",
        "work.previous",
        "work.previous-2",
    ]


def test_a_work_folder_that_holds_something_else_is_left_alone(variant: Variant, tmp_path: Path):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(Refusal, match="holds something else"):
        train(variant(work=str(tmp_path)))
    assert (tmp_path / "photo.jpg").read_text() == "mine"


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_nothing_to_learn_from_is_refused(variant: Variant, name: str):
    with pytest.raises(Refusal, match=f"train.{name} is 0; it must be at least 1"):
        train(variant(**{name: 0}))


@pytest.mark.parametrize(("scores", "best"), [([0.9, 0.1], 0), ([0.1, 0.9], 1)])
def test_the_epoch_with_the_best_validation_cider_is_kept(
    variant: Variant, scores: list[float], best: int, monkeypatch: pytest.MonkeyPatch
):
    left = iter(scores)
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(left))
    config = variant()
    train(config)
    kept = torch.load(Path(config.train.work) / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    last = torch.load(Path(config.train.work) / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    final = weights(config.train.out)
    for name, value in kept["state_dict"].items():
        assert torch.equal(final[name.removeprefix("captioner.")], value)


@pytest.mark.usefixtures("no_score")
def test_between_epochs_of_the_same_cider_the_loss_decides(variant: Variant):
    config = variant()
    train(config)
    losses = [float(row["val_loss"]) for row in rows(Path(config.train.curves) / "validation.csv")]
    kept = torch.load(Path(config.train.work) / "best.ckpt", weights_only=True)
    assert kept["epoch"] == losses.index(min(losses)) == 1
    (state,) = [s for name, s in kept["callbacks"].items() if name.startswith("BestEpoch")]
    assert state["best_loss"] == pytest.approx(min(losses), abs=1e-4)


def test_the_pictures_that_were_trained_on_travel_with_the_checkpoint(tiny_run: Config):
    dataset = CaptionDataset.load(tiny_run.train.data)
    for split in ("train", "val", "test", "compositional"):
        found = count_seen(tiny_run.train.out, dataset, dataset.ids(split))
        own = len(dataset.ids(split))
        assert found == {"train": own * (split == "train"), "val": own * (split == "val")}


def test_the_score_is_of_the_validation_pictures_own_captions(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def score(generated: dict[int, str], references: dict[int, list[str]]) -> float:
        seen.append((generated, references))
        return 0.5

    monkeypatch.setattr("training.captioner.train.cider", score)
    config = variant(epochs=1)
    train(config)
    ((generated, references),) = seen
    data = CaptionDataset.load(config.train.data)
    assert references == {i: data.captions[i] for i in data.ids("val")}
    assert list(generated) == list(data.ids("val"))
    artifact = eager_artifact(Checkpoint.load(config.train.out))
    file = FeatureFile(config.train.features)
    features = torch.from_numpy(file.features[file.rows(data.ids("val"))])
    greedy = GenerationOptions(num_beams=1, max_tokens=40)
    expected = [captions[0].text for captions in artifact.caption(features, greedy)]
    assert [" ".join(text.split()) for text in generated.values()] == expected


@pytest.mark.usefixtures("no_score")
def test_patches_of_the_encoder_are_learned_from_and_captioned(variant: Variant, tmp_path: Path):
    config = variant(epochs=1, max_tokens=12)
    features = dataclasses.replace(
        config.features, kind="patches", out=str(tmp_path / "features"), batch_size=7
    )
    assert encode_dataset(features) == 0
    mapper = dataclasses.replace(config.train.mapper, kind="patch", prefix_length=16)
    settings = dataclasses.replace(config.train, mapper=mapper, features=features.out)
    train(dataclasses.replace(config, train=settings, features=features))
    checkpoint = Checkpoint.load(settings.out)
    file = FeatureFile(features.out)
    assert file.features.shape == (60, 16, 32)
    dataset = CaptionDataset.load(settings.data)
    own = file.features[file.rows(dataset.ids("train"))].reshape(-1, 32)
    statistics = checkpoint.training_features
    assert statistics is not None
    assert statistics["count"] == 31
    np.testing.assert_allclose(statistics["mean"], own.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics["std"], own.std(0), atol=1e-5)
    evaluation = dataclasses.replace(config.evaluate, checkpoint=settings.out)
    artifact = eager_artifact(checkpoint)
    captions = caption_split(artifact, dataset, "test", evaluation)
    rows = torch.from_numpy(file.features[file.rows(dataset.ids("test"))])
    expected = artifact.caption(rows, artifact.defaults)
    assert [caption.text for caption in captions.values()] == [each[0].text for each in expected]


@pytest.mark.parametrize(
    ("mapper", "kind", "changes", "words"),
    [
        ("patch", "pooled", {}, "reads patches features, .* with features.kind=patches"),
        ("mlp", "patches", {}, "reads pooled features, .* or set train.mapper.kind to patch"),
        ("mlp", "tokens", {}, "features.kind is 'tokens'; it must be pooled or patches"),
        ("patch", "patches", {"normalize_feature": True}, "set train.normalize_feature=false"),
        ("patch", "patches", {}, "has 16 patches, .* set train.mapper.prefix_length=16"),
    ],
)
def test_a_mapper_and_features_that_do_not_fit_are_refused_with_the_setting(
    variant: Variant, mapper: str, kind: str, changes: dict[str, Any], words: str
):
    config = variant(**changes)
    settings = dataclasses.replace(
        config.train, mapper=dataclasses.replace(config.train.mapper, kind=mapper)
    )
    features = dataclasses.replace(config.features, kind=kind)
    with pytest.raises(Refusal, match=words):
        train(dataclasses.replace(config, train=settings, features=features))


@pytest.mark.usefixtures("no_score")
def test_the_prior_of_named_words_changes_what_is_learned(variant: Variant, tiny_run: Config):
    config = variant(pair_prior=["on", "in"], epochs=1)
    train(config)
    plain = variant(epochs=1, out=f"{config.train.out}-plain")
    train(plain)
    with_prior, without = (
        Checkpoint.load(c.train.out).captioner.mapper.state_dict() for c in (config, plain)
    )
    assert not torch.equal(with_prior["linear.weight"], without["linear.weight"])


@pytest.mark.usefixtures("no_score")
def test_a_frozen_gpt2_stays_as_it_was(variant: Variant, tiny_run: Config, tmp_path: Path):
    base = save_gpt2(tmp_path / "gpt2")
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, base=str(base))
    mapper = dataclasses.replace(tiny_run.train.mapper, kind="transformer", layers=1, heads=2)
    config = variant(gpt2=gpt2, mapper=mapper, tuning="frozen", epochs=1)
    train(config)
    trained = Checkpoint.load(config.train.out)
    before = GPT2LMHeadModel.from_pretrained(base).state_dict()
    after = trained.captioner.gpt2.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert trained.tokenizer.encode("two red boats").ids
    assert isinstance(trained.captioner.config.mapper, MapperConfig)


@pytest.mark.usefixtures("no_score")
def test_a_gpt2_from_a_folder_is_fine_tuned(variant: Variant, tiny_run: Config, tmp_path: Path):
    base = save_gpt2(tmp_path / "gpt2")
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, base=str(base))
    config = variant(gpt2=gpt2, epochs=1)
    train(config)
    before = GPT2LMHeadModel.from_pretrained(base).state_dict()
    after = Checkpoint.load(config.train.out).captioner.gpt2.state_dict()
    name = "transformer.h.0.attn.c_attn.weight"
    change = (before[name] - after[name]).abs().max()
    assert 0 < change < 0.1  # moved from where it was, not started anew


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_only_what_is_tuned_gets_gradients(tiny_run: Config, tuning: str):
    settings = dataclasses.replace(tiny_run.train, tuning=tuning)
    captioner = ClipCap(small_config())
    module = CaptionerModule(captioner, settings, list, lambda _: 0.0)
    module.trainer = trainer_of(10)
    module.train()
    module.on_train_epoch_start()
    captioner(torch.randn(2, 12), torch.tensor([[5, 6, 0], [7, 0, -100]])).backward()
    assert all(p.grad is not None for p in captioner.mapper.parameters())
    learned = [p.grad is not None for p in captioner.gpt2.parameters()]
    assert all(learned) if tuning == "full" else not any(learned)
    assert captioner.gpt2.training == (tuning == "full")  # no dropout in a fixed function
    groups = module.configure_optimizers()["optimizer"].param_groups
    tuned = captioner if tuning == "full" else captioner.mapper
    assert sum(len(group["params"]) for group in groups) == len(list(tuned.parameters()))
    assert [group["weight_decay"] for group in groups] == [settings.weight_decay, 0.0]


@pytest.mark.usefixtures("no_score")
def test_the_schedule_counts_optimiser_steps_not_batches(variant: Variant, tiny_run: Config):
    trainer = {**tiny_run.train.trainer, "accumulate_grad_batches": 2}
    config = variant(trainer=trainer, learning_rate=1e-3)
    train(config)
    last = torch.load(Path(config.train.work) / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6  # of 5 batches an epoch, in two epochs
    assert last["lr_schedulers"][0]["_last_lr"] == [0.0, 0.0]


@pytest.mark.usefixtures("no_score")
@pytest.mark.parametrize(
    ("name", "value", "steps"),
    [("max_steps", 2, 2), ("limit_val_batches", 0, 10), ("fast_dev_run", True, 1)],
)
def test_a_training_that_ends_before_it_was_validated_is_refused(
    variant: Variant, tiny_run: Config, name: str, value: int, steps: int
):
    words = rf"stopped after {steps} steps, .*; change or leave out train.trainer.{name}$"
    with pytest.raises(Refusal, match=words):
        train(variant(trainer={**tiny_run.train.trainer, name: value}))


@pytest.mark.usefixtures("no_score")
def test_the_record_is_of_the_steps_that_were_trained(variant: Variant, tiny_run: Config):
    config = variant(epochs=3, trainer={**tiny_run.train.trainer, "max_steps": 5})
    train(config)  # 5 steps an epoch
    record = Checkpoint.load(config.train.out).training
    assert record is not None
    assert (record["epochs"], record["optimiser_steps"]) == (1, 5)
    assert record["batches_per_step"] == 1


@pytest.mark.usefixtures("no_score")
def test_dropout_of_the_batches_of_a_step_differs(
    variant: Variant, tiny_run: Config, monkeypatch: pytest.MonkeyPatch
):
    step, seeds = CaptionerModule.training_step, []

    def seen(module: CaptionerModule, batch: CaptionBatch, index: int) -> Tensor:
        seeds.append(torch.initial_seed())
        return step(module, batch, index)

    monkeypatch.setattr(CaptionerModule, "training_step", seen)
    train(variant("alone", seed=7, epochs=1))
    assert seeds == [7, 8, 9, 10, 11]  # seed + step
    seeds.clear()
    trainer = {**tiny_run.train.trainer, "accumulate_grad_batches": 2}
    train(variant("accumulated", seed=7, epochs=1, trainer=trainer))
    assert seeds[::2] == [7, 8, 9]
    assert len(set(seeds)) == 5


def test_dropout_of_two_devices_differs(tiny_run: Config, monkeypatch: pytest.MonkeyPatch):
    module = CaptionerModule(ClipCap(small_config()), tiny_run.train, list, float)
    module.trainer = trainer_of(5)
    seeds = []
    for rank in (0, 1):
        monkeypatch.setattr(pl.Trainer, "global_rank", rank)
        module.on_train_batch_start((torch.empty(0),) * 3, 0)
        seeds.append(torch.initial_seed())
    assert seeds[0] == tiny_run.train.seed
    assert seeds[1] != seeds[0]


def test_seeds_of_ranks_and_batches_differ_in_the_bits_that_the_generator_reads():
    found = {
        batch_seed(3, step, rank, part) % 2**32
        for step in range(20)
        for rank in range(4)
        for part in range(4)
    }
    assert len(found) == 20 * 4 * 4
    assert batch_seed(3, 19, 0, 0) == 22


@pytest.mark.parametrize("name", ["max_epochs", "logger", "callbacks", "precision"])
def test_arguments_of_lightning_s_trainer_that_are_not_the_user_s_are_refused(
    variant: Variant, tiny_run: Config, name: str
):
    with pytest.raises(Refusal, match=f"train.trainer.{name} cannot be set: .*; leave it out"):
        train(variant(trainer={**tiny_run.train.trainer, name: None}))


def test_with_one_validation_picture_the_loss_decides(
    variant: Variant, tiny_run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = shutil.copytree(tiny_run.train.data, tmp_path / "scenes")
    splits = json.loads((data / "split.json").read_text())
    (data / "split.json").write_text(json.dumps({**splits, "val": splits["val"][:1]}))
    config = variant(data=str(data))
    train(config)
    assert "the epoch with the least validation loss is kept" in capsys.readouterr().err
    losses = [float(row["val_loss"]) for row in rows(Path(config.train.curves) / "validation.csv")]
    kept = torch.load(Path(config.train.work) / "best.ckpt", weights_only=True)
    assert kept["epoch"] == losses.index(min(losses))
    record = Checkpoint.load(config.train.out).training
    assert record is not None
    assert record["validation_loss"] == pytest.approx(min(losses), abs=1e-4)
    assert "validation_CIDEr" not in record


def test_longer_training_captions_than_the_language_model_has_places_for_are_refused(
    variant: Variant,
):
    with pytest.raises(Refusal, match=r"train.max_tokens is 130 .* 128 positions"):
        train(variant(max_tokens=130))


def test_longer_captions_than_the_language_model_has_places_for_are_refused(
    variant: Variant, tiny_run: Config
):
    config = variant()
    generation = dataclasses.replace(tiny_run.generation, max_tokens=64)
    gpt2 = dataclasses.replace(tiny_run.train.gpt2)
    mapper = dataclasses.replace(tiny_run.train.mapper, prefix_length=80)
    settings = dataclasses.replace(config.train, mapper=mapper, gpt2=gpt2, max_tokens=20)
    with pytest.raises(Refusal, match=r"generation.max_tokens is 64 .* 128 positions"):
        train(dataclasses.replace(config, train=settings, generation=generation))


def test_features_of_another_encoder_are_refused(variant: Variant, tmp_path: Path):
    other = save_clip(tmp_path / "clip", seed=9)
    config = variant()
    features = dataclasses.replace(config.features, clip=str(other))
    with pytest.raises(Refusal, match="encode the images again: python -m training.features"):
        train(dataclasses.replace(config, features=features))


@pytest.mark.parametrize("what", ["missing", "no end token", "no tokenizer"])
def test_a_language_model_that_cannot_be_used_is_refused(
    variant: Variant, tiny_run: Config, tmp_path: Path, what: str
):
    base = tmp_path / "gpt2"
    if what != "missing":
        save_gpt2(base, end="[STOP]" if what == "no end token" else END)
    if what == "no tokenizer":
        for file in base.glob("*token*"):
            file.unlink()
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, base=str(base))
    with pytest.raises(Refusal) as caught:
        train(variant(gpt2=gpt2))
    assert (str(base) if what != "no end token" else "[STOP]") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("end", "setting"), [("[SEP]", None), ("</s>", None), ("[STOP]", "[STOP]")]
)
def test_a_language_model_may_end_captions_with_another_token(
    variant: Variant, tiny_run: Config, tmp_path: Path, end: str, setting: str | None
):
    base = save_gpt2(tmp_path / "gpt2", end=end)
    gpt2 = dataclasses.replace(tiny_run.train.gpt2, base=str(base), end_token=setting)
    config = variant(gpt2=gpt2)
    train(config)
    checkpoint = Checkpoint.load(config.train.out)
    token = checkpoint.captioner.config.end_token_id
    assert checkpoint.tokenizer.id_to_token(token) == end
    assert not checkpoint.captioner.config.end_token_is_text


def test_published_weights_are_fine_tuned_on_another_data_set(
    variant: Variant, tiny_run: Config, tmp_path: Path
):
    """Weights of the original's layout (`tests/golden`), converted, on pictures that are new."""
    clip = save_clip(tmp_path / "clip", width=16)
    words = [f"word{n}" for n in range(100)]
    words[13] = "."
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="word0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "tokenizer")
    file = ROOT / "tests" / "golden" / "mlp_weights.pt"
    published = complete(read_published(file), file, str(clip), str(tmp_path / "tokenizer"))
    published.save(tmp_path / "published")
    before = published.captioner.state_dict()

    config = variant(init=str(tmp_path / "published"), turned=[], max_tokens=8, epochs=2)
    features = dataclasses.replace(
        config.features, clip=str(clip), out=str(tmp_path / "features"), device="cpu"
    )
    settings = dataclasses.replace(config.train, features=str(tmp_path / "features"))
    config = dataclasses.replace(config, features=features, train=settings)
    encode_dataset(config.features)
    train(config)
    checkpoint = Checkpoint.load(config.train.out)
    assert checkpoint.captioner.config.end_token_id == 13
    assert checkpoint.captioner.config.end_token_is_text
    assert checkpoint.tokenizer.to_str() == published.tokenizer.to_str()
    after = checkpoint.captioner.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.startswith("mapper.") for name in changed)
    assert not any(name.startswith("clip.") for name in changed)
    losses = [float(row["val_loss"]) for row in rows(Path(config.train.curves) / "validation.csv")]
    assert losses[-1] < losses[0]
    assert eager_artifact(checkpoint).text([5, 6, 13]) == "word5 word6 ."


def test_a_chinese_gpt2_with_the_tokenizer_of_bert_writes_without_blanks(
    variant: Variant, tiny_run: Config, tmp_path: Path
):
    base = tmp_path / "gpt2"
    base.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"海上有两只红船的蓝", "boat", "##s"]
    (base / "vocab.txt").write_text("\n".join([*words, *(f"word{n}" for n in range(80))]))
    # As uer/gpt2-chinese-cluecorpussmall: the end token of its config is not one of its vocabulary.
    config = GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(base)
    described = json.loads((base / "config.json").read_text())
    described["tokenizer_class"] = "BertTokenizer"
    (base / "config.json").write_text(json.dumps(described))
    given = dataclasses.replace(tiny_run.train.gpt2, base=str(base))
    train(settings := variant(gpt2=given, turned=[]))
    checkpoint = Checkpoint.load(settings.train.out)
    assert checkpoint.captioner.config.end_token_id == words.index("[SEP]")
    artifact = eager_artifact(checkpoint)
    ids = [words.index(word) for word in ("海", "上", "有", "boat", "##s", "[SEP]")]
    assert artifact.text(ids) == "海上有 boats"
    assert artifact.prompt_tokens("海上") == ids[:2]


def test_a_run_without_a_fresh_start_leaves_the_old_checkpoint(variant: Variant, tmp_path: Path):
    config = variant(tuning="frozen")
    old = Path(config.train.out)
    old.mkdir(parents=True)
    (old / "config.json").write_text(json.dumps({"old": True}))
    with pytest.raises(Refusal):
        train(config)
    assert json.loads((old / "config.json").read_text()) == {"old": True}
