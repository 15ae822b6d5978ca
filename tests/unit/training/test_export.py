"""Exporting: only what says the same as its checkpoint takes the place of an older one."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.export import eager_artifact
from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.layers.precision import PRECISIONS, unsupported_reason
from model.options import GenerationOptions
from model.refusal import Refusal
from training.config import Export, load_config
from training.data.dataset import CaptionDataset
from training.evaluation.precision_gate import Gate
from training.export import read_settings
from training.exporting.comparison import compare, hugging_face_tokens
from training.exporting.export import export
from training.exporting.precision_choice import LARGE_WEIGHTS, choose_precision, preferred
from training.exporting.sample_pictures import sample_pixels


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.load(tiny_checkpoint)


@pytest.fixture
def settings(tiny_checkpoint: Path, tmp_path: Path) -> Export:
    own = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return Export(str(own), str(tmp_path / "out" / "a"), "auto", "torchscript", None)


@pytest.fixture(scope="module")
def pixels(checkpoint: Checkpoint) -> Tensor:
    return sample_pixels(checkpoint.captioner.config.preprocessing, None)[0]


def test_a_faithful_artifact_passes(checkpoint: Checkpoint, tiny_artifact: Path, pixels: Tensor):
    compare(checkpoint, Artifact.load(tiny_artifact), pixels)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("clip", "the exported encoder differs by .* the limit is 1e-04"),
        ("mapper", "with 1 beams, .* of 8 sample pictures captioned in a batch differ"),
        ("gpt2", "with 1 beams, .* of 8 sample pictures captioned in a batch differ"),
    ],
)
def test_an_artifact_that_was_tampered_with_is_refused(
    checkpoint: Checkpoint, part: str, words: str, pixels: Tensor
):
    other = copy.deepcopy(checkpoint)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in getattr(other.captioner, part).parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    with pytest.raises(Refusal, match=words):
        compare(checkpoint, eager_artifact(other), pixels)


@torch.inference_mode()
def test_both_sides_of_the_comparison_write_tokens_up_to_the_end(
    checkpoint: Checkpoint, pixels: Tensor
):
    artifact = eager_artifact(checkpoint)
    features = artifact.encode(pixels)
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
    monkeypatch.setattr(
        "training.exporting.comparison.FEATURE_TOLERANCE", -1.0
    )  # nothing is good enough
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


@pytest.mark.parametrize(
    ("usable", "weights", "native_bf16", "chosen"),
    [
        (PRECISIONS, 1, True, "bf16"),
        (PRECISIONS, LARGE_WEIGHTS + 1, True, "bf16"),
        (PRECISIONS, LARGE_WEIGHTS + 1, False, "fp16"),
        (PRECISIONS, LARGE_WEIGHTS, False, "fp32"),
        (("fp32", "int8"), LARGE_WEIGHTS + 1, True, "fp32"),
        (("fp32", "fp16"), LARGE_WEIGHTS + 1, True, "fp16"),
        ((), LARGE_WEIGHTS + 1, True, "fp32"),
    ],
)
def test_auto_follows_a_fixed_order(
    usable: tuple[str, ...], weights: int, native_bf16: bool, chosen: str
):
    assert preferred(usable, weights, native_bf16) == chosen


def test_auto_takes_only_what_passed_and_what_is_measured_is_of_today(
    monkeypatch: pytest.MonkeyPatch,
):
    native = "training.exporting.precision_choice.multiplies_bf16"
    monkeypatch.setattr(native, lambda: True)
    exact, same = Gate(1.0, 3.0, 0.0).to_dict(), Gate(0.99, 3.0, 0.0).to_dict()
    passed = {"fp32": exact, "bf16": same}
    failed = {"int8": Gate(0.9, 3.0, 0.0).to_dict()}
    available = "fp32" if unsupported_reason("bf16") else "bf16"
    assert choose_precision("auto", {"precisions": passed | failed}, 1) == available
    worse = {**passed, "bf16": Gate(0.97, 3.0, 0.0).to_dict()}
    assert choose_precision("auto", {"precisions": worse}, 1) == "fp32"
    older = {**passed, "bf16": {**same, "arithmetic": 1}}  # about other products
    assert choose_precision("auto", {"precisions": older}, 1) == "fp32"
    assert choose_precision("auto", None, 1) == choose_precision("auto", {}, 1) == "fp32"
    with pytest.raises(Refusal, match=r"int8 did not pass its gate: 90.0% of the captions"):
        choose_precision("int8", {"precisions": failed}, 1)
    with pytest.raises(Refusal, match=r"'fp8'; it must be auto, fp32, fp16, bf16, int8"):
        choose_precision("fp8", None, 1)


def test_every_precision_and_auto_may_be_set():
    for precision in ("auto", *PRECISIONS):
        assert load_config([f"export.precision={precision}"]).export.precision == precision


def test_samples_are_pictures_of_the_data_set_if_there_is_one(
    checkpoint: Checkpoint, tiny_scenes: Path, tmp_path: Path
):
    preprocessing = checkpoint.captioner.config.preprocessing
    own, source = sample_pixels(preprocessing, str(tiny_scenes))
    assert source == f"{len(own)} pictures of the test split of {tiny_scenes}"
    dataset = CaptionDataset.load(tiny_scenes)
    file = dataset.files[dataset.ids("test")[0]]
    assert torch.equal(own[0], to_pixels(load_image(file.read_bytes()), preprocessing))
    again, _ = sample_pixels(preprocessing, str(tiny_scenes))
    assert torch.equal(own, again)
    for data, words in (
        (None, "8 generated pictures"),
        (str(tmp_path), f"8 generated pictures, as there is no data set in {tmp_path}"),
    ):
        made, source = sample_pixels(preprocessing, data)
        assert source == words
        assert made.shape == (8, *own.shape[1:])
        assert torch.equal(made, sample_pixels(preprocessing, data)[0])
    assert len({row.numpy().tobytes() for row in made}) == 8


def test_an_export_on_pictures_of_its_own_data_set(settings: Export, tiny_scenes: Path):
    export(dataclasses.replace(settings, data=str(tiny_scenes)))
    assert Artifact.load(settings.out).info["precision"] == "fp32"


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ([], "data/scenes"),
        (["experiment=folder"], "data/mine"),
        (["--checkpoint", "models/clipcap"], "data/scenes"),
        (["--checkpoint", "models/published"], None),
        (["--checkpoint", "models/published", "export.data=data/mine"], "data/mine"),
    ],
)
def test_another_checkpoint_is_not_checked_with_the_pipeline_s_pictures(
    words: list[str], data: str | None
):
    assert read_settings(words).data == data


# Where the processor has no bf16 products the precision is refused, so nothing is to be compared.
@pytest.mark.skipif(bool(unsupported_reason("bf16")), reason=unsupported_reason("bf16"))
def test_a_narrow_artifact_that_finds_captions_less_likely_is_refused(
    checkpoint: Checkpoint, pixels: Tensor
):
    compare(checkpoint, eager_artifact(checkpoint, "bf16"), pixels)
    other = copy.deepcopy(checkpoint)
    with torch.no_grad():
        other.captioner.gpt2.transformer.wte.weight.mul_(1.5)
    with pytest.raises(Refusal, match=r"in bf16 the log-probability .* the limit is 0.02"):
        compare(checkpoint, eager_artifact(other, "bf16"), pixels)
