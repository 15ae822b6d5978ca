"""Targets, examples and learning of the quality head, small."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.quality_file import HEAD, RECORD
from training.config import Config, Quality, load_config
from training.data.dataset import CaptionDataset
from training.evaluation.scores.checks import find_checks
from training.evaluation.scores.reliability import auroc
from training.judging.examples import Examples, write_examples
from training.judging.learn import fit, learn
from training.judging.learning import calibrated, caption_loss, learn_head, odds, split_pictures
from training.judging.targets import ByReferences, ByTruth
from training.quality import read_settings

TOKENS, WIDTH = 6, 8


def settings(**changes: object) -> Quality:
    small = {"pictures": 12, "draws": 2, "epochs": 3, "batch_size": 64, "width": 16, "workers": 0}
    return dataclasses.replace(load_config().quality, **{**small, **changes})


def made_up(pictures: int, marked: bool = True) -> Examples:
    """Captions of which a token is wrong where the first number of its state is above 1.2."""
    generator = torch.Generator().manual_seed(2)
    count = 4 * pictures
    states = torch.randn(count, TOKENS, WIDTH, generator=generator)
    lengths = torch.randint(2, TOKENS + 1, (count,), generator=generator)
    within = torch.arange(TOKENS) < lengths.unsqueeze(-1)
    wrong = ((states[..., 0] > 1.2) & within).float()
    return Examples(
        states.half(),
        -torch.rand(count, TOKENS, generator=generator),
        lengths,
        (wrong.sum(1) == 0).float(),
        wrong if marked else torch.zeros_like(wrong),
        torch.full((count,), marked),
        torch.arange(pictures).repeat_interleave(4),
        torch.arange(count) % 4 == 0,
    )


@pytest.mark.parametrize("marked", [True, False])
def test_a_head_learns_which_captions_are_right(marked: bool):
    chosen = settings(epochs=25, learning_rate=1e-2, dropout=0.0)
    quality = fit(made_up(200, marked), chosen)
    assert quality.record["held_out_all_captions"]["AUROC"] > 0.9
    assert quality.record["pictures"] == 200
    assert quality.record["captions"] == 800


def test_the_same_seed_learns_the_same_head():
    one, other = (fit(made_up(40), settings()).head.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_picture_is_both_learned_and_held_out():
    examples = made_up(50)
    parts = split_pictures(examples, 0.2, 1)
    pictures = [set(examples.picture[rows].tolist()) for rows in parts]
    assert [len(each) for each in pictures] == [40, 5, 5]
    assert set.union(*pictures) == set(range(50))
    assert [len(rows) for rows in split_pictures(made_up(3), 0.2, 1)] == [4, 4, 4]


def test_calibration_mends_a_head_that_is_too_sure():
    examples = made_up(300)
    parts = split_pictures(examples, 0.5, 1)
    head = learn_head(examples, parts, settings(epochs=10))
    with torch.no_grad():
        head.offset.fill_(3.0)
    before = odds(head, examples, parts.measured)
    mended = calibrated(head, examples, parts.calibrated)
    after = mended.slope * before + mended.offset
    right = examples.right[parts.measured]
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert loss(after, right) < loss(before + 3.0, right) - 0.1
    assert torch.sigmoid(after).mean().item() == pytest.approx(right.mean().item(), abs=0.08)
    ranked = auroc(before.tolist(), right.bool().tolist())
    assert auroc(after.tolist(), right.bool().tolist()) == pytest.approx(ranked)


def test_calibration_of_captions_that_are_all_right_stays_finite():
    examples = made_up(20)
    examples.right.fill_(1.0)
    parts = split_pictures(examples, 0.2, 1)
    head = calibrated(learn_head(examples, parts, settings()), examples, parts.calibrated)
    assert head.slope.isfinite()
    assert head.offset.isfinite()
    assert head.slope > 0


def test_tokens_of_unmarked_captions_have_no_part_in_the_loss():
    examples = made_up(10, marked=False)
    head = learn_head(examples, split_pictures(examples, 0.2, 1), settings(epochs=1))
    expected = caption_loss(head, examples)
    examples.wrong.fill_(1.0)
    assert torch.equal(caption_loss(head, examples), expected)


def test_targets_by_truth_know_the_false_words(tiny_run: Config):
    dataset = CaptionDataset.load(tiny_run.evaluate.data)
    checks = find_checks(dataset.root)
    assert checks is not None
    targets, image_id = ByTruth(checks), dataset.ids("test")[0]
    true = dataset.captions[image_id][0]
    assert targets(image_id, true, True) == (1.0, [])
    false = f"{true} and four purple boats and three purple houses"
    right, wrong = targets(image_id, false, True)
    assert right == 0.0
    assert wrong
    assert all(first >= len(true) for first, _ in wrong)


def test_targets_by_references_are_shares_of_a_person_s_agreement(tiny_run: Config):
    dataset = CaptionDataset.load(tiny_run.evaluate.data)
    ids = list(dataset.ids("test"))
    targets = ByReferences(dataset, ids)
    own = [targets(i, dataset.captions[i][0], True) for i in ids]
    other = [targets(i, dataset.captions[j][0], True) for i, j in zip(ids, ids[1:], strict=False)]
    assert all(0 <= each.right <= 1 and each.wrong is None for each in [*own, *other])
    assert min(each.right for each in own) > 0.9
    assert sum(each.right for each in other) / len(other) < 0.6


def test_examples_are_the_captions_and_states_of_the_captioner(tiny_run: Config):
    checkpoint = Checkpoint.load(tiny_run.evaluate.checkpoint, learned=())
    artifact = eager_artifact(checkpoint)
    dataset = CaptionDataset.load(tiny_run.evaluate.data)
    checks = find_checks(dataset.root)
    assert checks is not None
    ids = dataset.ids("test")[:3]
    beams = checkpoint.generation.num_beams
    found = write_examples(checkpoint, artifact, dataset, ids, ByTruth(checks), settings())
    assert found.picture.tolist() == [n for n in range(3) for _ in range(beams + 2)]
    assert found.best.sum() == 3
    assert found.best[:: beams + 2].all()
    assert (found.right[found.wrong.sum(1) > 0] == 0).all()
    assert (found.log_probs <= 0).all()


@pytest.fixture
def captioner(tiny_run: Config, tmp_path: Path) -> Path:
    """A copy of the small trained captioner."""
    shutil.copytree(tiny_run.evaluate.checkpoint, tmp_path / "captioner")
    return tmp_path / "captioner"


@pytest.mark.parametrize("by_truth", [True, False])
def test_the_command_puts_a_head_beside_the_weights(
    captioner: Path, tiny_run: Config, tmp_path: Path, by_truth: bool, capsys: pytest.CaptureFixture
):
    data = tmp_path / "data"
    shutil.copytree(tiny_run.evaluate.data, data)
    if not by_truth:
        (data / "truth.json").unlink()
    weights = (captioner / "model.safetensors").read_bytes()
    words = [f"--data={data}", f"--checkpoint={captioner}", "quality.split=test"]
    words += ["quality.pictures=6", "quality.epochs=2", "quality.workers=0", "quality.device=cpu"]
    record = learn(read_settings(words))
    assert (captioner / "model.safetensors").read_bytes() == weights
    assert json.loads((captioner / RECORD).read_text()) == record
    assert record["target"] == ("truth" if by_truth else "references")
    assert record["pictures"] == 6
    assert "AUROC" in capsys.readouterr().out
    head = (captioner / HEAD).read_bytes()
    learn(read_settings(words))
    assert (captioner / HEAD).read_bytes() == head
    artifact = eager_artifact(Checkpoint.load(captioner))
    features = artifact.encode(torch.randn(2, 3, *[artifact.preprocessing.size] * 2))
    for (best,) in artifact.caption(features, artifact.defaults.updated({"num_captions": 1})):
        assert best.quality is not None
        assert 0 < best.quality < 1
