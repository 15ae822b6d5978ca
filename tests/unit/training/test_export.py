"""Exporting: only what says the same as its checkpoint takes the place of an older one."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from model.artifact import Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.export import eager_artifact
from model.layers.precision import unsupported_reason
from model.options import GenerationOptions
from model.refusal import Refusal
from training.config import Export
from training.evaluation.precision_gate import Gate
from training.export import (
    choose_precision,
    compare,
    export,
    hugging_face_tokens,
    sample_pixels,
)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.load(tiny_checkpoint)


@pytest.fixture
def settings(tiny_checkpoint: Path, tmp_path: Path) -> Export:
    own = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return Export(str(own), str(tmp_path / "out" / "a"), "auto")


def test_a_faithful_artifact_passes(checkpoint: Checkpoint, tiny_artifact: Path):
    compare(checkpoint, Artifact.load(tiny_artifact))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("clip", "the exported encoder differs by .* the limit is 1e-04"),
        ("mapper", "with 1 beams, .* of 8 sample pictures captioned in a batch differ"),
        ("gpt2", "with 1 beams, .* of 8 sample pictures captioned in a batch differ"),
    ],
)
def test_an_artifact_that_was_tampered_with_is_refused(
    checkpoint: Checkpoint, part: str, words: str
):
    other = copy.deepcopy(checkpoint)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in getattr(other.captioner, part).parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    with pytest.raises(Refusal, match=words):
        compare(checkpoint, eager_artifact(other))


@torch.inference_mode()
def test_both_sides_of_the_comparison_write_tokens_up_to_the_end(checkpoint: Checkpoint):
    artifact = eager_artifact(checkpoint)
    features = artifact.encode(sample_pixels(artifact))
    options = GenerationOptions(num_beams=3, max_tokens=9, min_tokens=2)
    ours, theirs = (
        artifact.tokens(features, options),
        hugging_face_tokens(checkpoint, features, options),
    )
    assert ours == theirs
    end = checkpoint.captioner.config.end_token_id
    for ids in ours:
        assert 2 < len(ids) <= 9
        assert end not in ids[:-1]


def test_figures_travel_only_with_the_weights_they_are_about(
    settings: Export, tiny_checkpoint: Path
):
    metrics = Path(settings.checkpoint, "evaluation.json")
    figures = {"test": {"CIDEr": 1.0}, "weights_sha256": weights_sha256(tiny_checkpoint)}
    metrics.write_text(json.dumps(figures))
    assert export(settings).info["evaluation"] == figures
    metrics.write_text(json.dumps({**figures, "weights_sha256": "of another checkpoint"}))
    assert export(settings).info["evaluation"] is None
    assert [file.name for file in Path(settings.out).parent.iterdir()] == ["a"]


def test_damaged_figures_are_refused(settings: Export):
    Path(settings.checkpoint, "evaluation.json").write_text("{")
    with pytest.raises(Refusal, match=r"evaluation.json is not JSON"):
        export(settings)
    Path(settings.checkpoint, "evaluation.json").write_text("[]")
    with pytest.raises(Refusal, match=r"evaluation.json holds no values by name"):
        export(settings)


def test_a_failed_export_leaves_the_old_one_in_place(
    settings: Export, monkeypatch: pytest.MonkeyPatch
):
    out = Path(settings.out)
    out.mkdir(parents=True)
    (out / "captioner.pt").write_bytes(b"the one that works")
    monkeypatch.setattr("training.export.FEATURE_TOLERANCE", -1.0)  # nothing is good enough
    with pytest.raises(Refusal, match="this export cannot be used"):
        export(settings)
    assert (out / "captioner.pt").read_bytes() == b"the one that works"


def test_a_checkpoint_that_is_missing_is_refused(settings: Export, tmp_path: Path):
    gone = dataclasses.replace(settings, checkpoint=str(tmp_path / "nowhere"))
    with pytest.raises(
        Refusal, match=r"config.json is missing; give a captioner's checkpoint fold"
    ):
        export(gone)
    assert not Path(settings.out).exists()


def test_the_fastest_precision_that_passed_is_chosen():
    exact, same = Gate(1.0, 3.0, 0.0, 1.0).to_dict(), Gate(0.99, 3.0, 0.0, 0.5)
    passed = {"fp32": exact, "bf16": same.to_dict()}
    failed = {"int8": Gate(0.9, 3.0, 0.0, 0.2).to_dict()}
    available = "fp32" if unsupported_reason("bf16") else "bf16"
    assert choose_precision("auto", {"precisions": passed | failed}) == available
    older = {**passed, "bf16": {**same.to_dict(), "arithmetic": 1}}  # about other products
    assert choose_precision("auto", {"precisions": older}) == "fp32"
    level = {**passed, "bf16": dataclasses.replace(same, seconds=0.95).to_dict()}
    assert choose_precision("auto", {"precisions": level}) == "fp32"
    assert choose_precision("auto", None) == choose_precision("auto", {}) == "fp32"
    with pytest.raises(Refusal, match=r"int8 did not pass its gate: 90.0% of the captions"):
        choose_precision("int8", {"precisions": failed})
    with pytest.raises(Refusal, match=r"'fp8'; it must be auto, fp32, fp16, bf16, int8"):
        choose_precision("fp8", None)


# Where the processor has no bf16 products the precision is refused, so nothing is to be compared.
@pytest.mark.skipif(bool(unsupported_reason("bf16")), reason=unsupported_reason("bf16"))
def test_a_narrow_artifact_that_finds_captions_less_likely_is_refused(checkpoint: Checkpoint):
    compare(checkpoint, eager_artifact(checkpoint, "bf16"))
    other = copy.deepcopy(checkpoint)
    with torch.no_grad():
        other.captioner.gpt2.transformer.wte.weight.mul_(1.5)
    with pytest.raises(Refusal, match=r"in bf16 the log-probability .* the limit is 0.02"):
        compare(checkpoint, eager_artifact(other, "bf16"))
