"""The artifact on another device: the same captions, every tensor made there, or one refusal.

A machine without a GPU runs the arithmetic of a GPU's layers on the CPU, and the whole captioner on
a stand-in for a device (`tests.other_device`). With a GPU the same file runs on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact, export_torchscript
from model.layers.precision import available, unsupported_on
from model.options import GenerationOptions
from model.refusal import Refusal
from tests.other_device import DEVICE, moved, on_other_device

OPTIONS = [
    GenerationOptions(num_beams=1, max_tokens=12),
    GenerationOptions(num_beams=4, num_captions=2, max_tokens=12),
    GenerationOptions(num_beams=3, max_tokens=12, no_repeat_ngram_size=2, repetition_penalty=1.3),
    GenerationOptions(num_beams=1, num_captions=3, max_tokens=12, temperature=1.1, top_k=30),
    GenerationOptions(num_beams=2, max_tokens=16, prompt="two red", max_characters=24),
]
FLOATS = [name for name in available() if name != "int8"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def exported(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Precision -> the folder of an artifact."""
    folder = tmp_path_factory.mktemp("precisions")

    def export(precision: str) -> Path:
        if precision == "fp32":
            return tiny_artifact
        if not (folder / precision).exists():
            export_torchscript(tiny_checkpoint, folder / precision, None, precision)
        return folder / precision

    return export


def pictures(count: int) -> Tensor:
    """Normalised pixels [count, 3, 32, 32]."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def plain(artifact: Artifact, file: Path) -> Artifact:
    """The same file with the plain weights that a GPU computes with, on the CPU."""
    module = torch.jit.load(file).eval()
    for layer in module.modules():
        if hasattr(layer, "keep_plain"):
            layer.keep_plain()
    return Artifact(module, artifact.info, artifact.tokenizer)


def assert_alike(found: Artifact, expected: Artifact, precision: str):
    """The same tokens in fp32; in another precision captions that are about as likely."""
    features = expected.encode(pictures(3))
    tolerance = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2}[precision]
    torch.testing.assert_close(found.encode(pictures(3)), features, atol=tolerance, rtol=tolerance)
    for options in OPTIONS:
        tokens, lengths, log_probs, _ = expected.search(features, options)
        if precision == "fp32":
            own = found.search(features, options)
            assert own[0].tolist() == tokens.tolist()
            assert own[1].tolist() == lengths.tolist()
            torch.testing.assert_close(own[2], log_probs, atol=1e-3, rtol=0)
        change = found.score(features, tokens[:, 0]) - expected.score(features, tokens[:, 0])
        assert change.mean(1).abs().max() < 0.02  # nats a token, as an export may change


@pytest.mark.parametrize("precision", FLOATS)
def test_plain_layers_compute_what_packed_ones_do(exported: Callable[[str], Path], precision: str):
    packed = Artifact.load(exported(precision))
    assert_alike(plain(packed, exported(precision) / "captioner.pt"), packed, precision)


@needs_gpu
@pytest.mark.parametrize("precision", FLOATS)
def test_the_captions_of_a_gpu_are_those_of_the_cpu(
    exported: Callable[[str], Path], precision: str
):
    gpu = Artifact.load(exported(precision), torch.device("cuda:0"))
    assert_alike(gpu, Artifact.load(exported(precision)), precision)


@pytest.mark.parametrize("precision", FLOATS)
def test_every_tensor_is_made_on_the_device(
    tiny_checkpoint: Path, precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("model.layers.packing._scripted", lambda layer: layer)
    here, there = (eager_artifact(Checkpoint.load(tiny_checkpoint), precision) for _ in range(2))
    for artifact in (here, there):
        for layer in artifact.module.modules():
            if hasattr(layer, "keep_plain"):
                layer.keep_plain()
    moved(there.module)
    there.device = DEVICE
    # Without `inference_mode`, in which the stand-in does not work.
    encode, search = inspect.unwrap(Artifact.encode), inspect.unwrap(Artifact.search)
    with torch.no_grad():
        features = encode(here, pictures(3))
    # The stand-in's attention is computed in other steps, which bfloat16 rounds otherwise.
    tolerance = 5e-2 if precision == "bf16" else 1e-5
    own = on_other_device(lambda: encode(there, pictures(3)))
    torch.testing.assert_close(own, features, atol=tolerance, rtol=0)
    for options in OPTIONS:
        expected = here.search(features, options)
        found = on_other_device(lambda: search(there, features, options))  # noqa: B023
        assert found[1].shape == expected[1].shape
        if precision != "bf16":
            assert found[0].tolist() == expected[0].tolist()
            torch.testing.assert_close(found[2], expected[2])


def test_nothing_in_the_file_names_the_cpu(exported: Callable[[str], Path]):
    module = torch.jit.load(exported("fp32") / "captioner.pt")
    for graph in (
        module.encode.inlined_graph,
        module.caption.inlined_graph,
        module.score.inlined_graph,
    ):
        used = [line for line in str(graph).splitlines() if 'value="cpu"' in line]
        assert not used


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("cuda:0", "fp32", "there is no GPU 0; torch can use 0"),
        ("meta", "fp32", "the device is 'meta'; it must be cpu or cuda:N"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    exported: Callable[[str], Path],
    device: str,
    precision: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refusal, match=rf"captioner.pt was .*{words}; it cannot run on {device}"):
        Artifact.load(exported(precision), torch.device(device))


def test_a_gpu_runs_the_precisions_that_it_can(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    second, third = torch.device("cuda:1"), torch.device("cuda:2")
    assert unsupported_on(second, "fp32", True) == unsupported_on(second, "fp16") == ""
    assert unsupported_on(second, "bf16") == "bf16 is not supported by this GPU"
    assert "int8 is for processors" in unsupported_on(second, "int8")
    assert unsupported_on(third, "fp32") == "there is no GPU 2; torch can use 2"
