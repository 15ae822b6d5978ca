"""What is exported computes what the Hugging Face modules compute."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from model.artifact import Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.config import MapperConfig
from model.export import eager_artifact, export_torchscript
from model.layers.precision import available
from model.network.captioner import ClipCap
from model.network.conversion import build_decoder
from model.options import GenerationOptions
from model.refusal import Refusal
from tests.models import small_config

OPTIONS = [
    GenerationOptions(num_beams=1, max_tokens=12),
    GenerationOptions(num_beams=5, num_captions=3, max_tokens=12),
    GenerationOptions(num_beams=8, max_tokens=20, min_tokens=4, length_penalty=-0.5),
]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.load(tiny_checkpoint)


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


def pictures(count: int) -> Tensor:
    """Normalised pixels [count, 3, 32, 32]."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_features_are_those_of_hugging_face(checkpoint: Checkpoint, artifact: Artifact, count: int):
    clip = checkpoint.captioner.clip
    assert clip is not None
    with torch.inference_mode():
        expected = clip.visual_projection(clip.vision_model(pictures(count)).pooler_output)
    torch.testing.assert_close(artifact.encode(pictures(count)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{options.num_beams} beams")
def test_exported_and_unexported_say_the_same(
    checkpoint: Checkpoint, artifact: Artifact, options: GenerationOptions
):
    before = eager_artifact(checkpoint)
    features = before.encode(pictures(3))
    expected, found = before.caption(features, options), artifact.caption(features, options)
    for mine, theirs in zip(found, expected, strict=True):
        assert [caption.text for caption in mine] == [caption.text for caption in theirs]
        assert [c.log_prob for c in mine] == pytest.approx([c.log_prob for c in theirs], abs=1e-3)
    described = {key: artifact.info[key] for key in before.info}
    assert described == json.loads(json.dumps(before.info))


@pytest.mark.parametrize("precision", available()[1:])
def test_a_narrow_export_says_what_it_said_before_and_loads_without_a_word(
    checkpoint: Checkpoint, tiny_checkpoint: Path, tmp_path: Path, precision: str
):
    export_torchscript(tiny_checkpoint, tmp_path / "narrow", None, precision)
    before, narrow = eager_artifact(checkpoint, precision), Artifact.load(tmp_path / "narrow")
    for options in OPTIONS:
        features = before.encode(pictures(3))
        found, expected = narrow.caption(features, options), before.caption(features, options)
        for mine, theirs in zip(sum(found, []), sum(expected, []), strict=True):
            assert mine.text == theirs.text
            assert mine.log_prob == pytest.approx(theirs.log_prob, abs=1e-3)
    tokens = before.search(features, OPTIONS[2])[0][:, 0]
    exact = eager_artifact(checkpoint)
    change = narrow.score(features, tokens) - exact.score(exact.encode(pictures(3)), tokens)
    assert change.mean(1).abs().max() < 0.02  # nats a token, as an export may change
    # A server logs what loading says, each time that a worker starts.
    loading = f"from model.artifact import Artifact; Artifact.load({str(tmp_path / 'narrow')!r})"
    done = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@torch.inference_mode()
def test_the_file_alone_goes_from_pixels_to_tokens(artifact: Artifact):
    tokens, lengths, log_probs, _ = artifact.module(pictures(3), 4, 2, 10, 0, 1.0)
    features = artifact.encode(pictures(3))
    again = artifact.module.caption(features, 4, 2, 10, 0, 1.0, 1.0, 0, 0.0, 0, 1.0, None, None, 0)
    assert torch.equal(tokens, again[0])
    assert torch.equal(lengths, again[1])
    torch.testing.assert_close(log_probs, again[2])
    assert artifact.module(pictures(1))[0].shape[:2] == (1, 1)  # every option has a default


@pytest.mark.parametrize("kind", ["transformer", "linear", "patch"])
@pytest.mark.parametrize("normalize", [True, False])
def test_every_mapper_survives_tracing(
    checkpoint: Checkpoint, kind: str, normalize: bool, tmp_path: Path
):
    torch.manual_seed(0)
    config = small_config(
        clip=checkpoint.captioner.config.clip,
        feature_width=32 if kind == "patch" else 24,
        mapper=MapperConfig(kind, 16 if kind == "patch" else 3, clip_length=2, layers=2, heads=2),
        gpt2={**checkpoint.captioner.config.gpt2, "n_layer": 1},
        normalize_feature=normalize,
    )
    other = Checkpoint(ClipCap(config).eval(), checkpoint.tokenizer, OPTIONS[0])
    other.save(tmp_path / "checkpoint")
    export_torchscript(tmp_path / "checkpoint", tmp_path / "artifact")
    module = Artifact.load(tmp_path / "artifact").module
    for count in (1, 5):
        with torch.inference_mode():
            features = other.captioner.encode(pictures(count))
            torch.testing.assert_close(module.encode(pictures(count)), features)
            torch.testing.assert_close(module.prefix(features), other.captioner.prefix(features))


def test_what_a_server_must_know_is_written_down(tiny_checkpoint: Path, tmp_path: Path):
    figures = {"test": {"CIDEr": 1.5}}
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (checkpoint / "training_features.json").write_text('{"count": 3}')
    export_torchscript(checkpoint, tmp_path / "artifact", figures)
    info = Artifact.load(tmp_path / "artifact").info
    assert info["evaluation"] == figures
    assert info["training_features"] == {"count": 3}
    assert info["weights_sha256"] == weights_sha256(checkpoint)
    assert info["versions"]["torch"] == torch.__version__
    assert info["preprocessing"]["size"] == 32
    assert (info["prefix_length"], info["feature_width"], info["vocabulary"]) == (4, 24, 300)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["artifact", "checkpoint"]


def test_a_captioner_without_encoder_is_not_exported(tmp_path: Path, checkpoint: Checkpoint):
    gpt2 = {**small_config().gpt2, "vocab_size": 300}
    bare = Checkpoint(
        ClipCap(small_config(gpt2=gpt2)).eval(),
        checkpoint.tokenizer,
        GenerationOptions(max_tokens=8),
    )
    bare.save(tmp_path / "checkpoint")
    with pytest.raises(Refusal, match="has no CLIP encoder; a server needs one"):
        export_torchscript(tmp_path / "checkpoint", tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_function": "relu"}, "activation_function of this GPT-2 is 'relu'; only"),
        ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx of this GPT-2 is True"),
        ({"vocab_size": 15}, "vocabulary is 15 tokens; beam search needs at least 16"),
    ],
)
def test_a_gpt2_that_the_decoder_does_not_compute_is_refused(
    changes: dict[str, object], words: str
):
    config = GPT2Config(**{**small_config().gpt2, **changes})
    with pytest.raises(Refusal, match=words):
        build_decoder(GPT2LMHeadModel(config))


@torch.inference_mode()
def test_the_decoder_reads_a_prefix_as_gpt2_does():
    torch.manual_seed(0)
    config = GPT2Config(**{**small_config().gpt2, "n_inner": 24, "layer_norm_epsilon": 1e-3})
    gpt2 = GPT2LMHeadModel(config).eval()
    prefix = torch.randn(2, 5, 16)
    decoder = build_decoder(gpt2)
    hidden, cache = decoder.prefill(prefix, 12)
    logits = decoder.output.head(hidden)
    expected = gpt2(inputs_embeds=prefix).logits[:, -1:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert cache.used == 5


def test_every_weight_is_in_the_file_once(tiny_checkpoint: Path, tiny_artifact: Path):
    weights = (tiny_checkpoint / "model.safetensors").stat().st_size
    held = sum(p.numel() * 4 for p in torch.jit.load(tiny_artifact / "captioner.pt").parameters())
    assert held < weights * 1.02
