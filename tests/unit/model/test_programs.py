"""Programs of `torch.export` write the captions of the TorchScript file, or are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.config import MapperConfig
from model.export import eager_artifact, export_torchscript
from model.layers.linear import PackedLinear
from model.layers.precision import unsupported_reason
from model.network.captioner import ClipCap
from model.network.drafts import count_drafts
from model.network.encoder import ImageEncoder
from model.network.quality import QualityHead
from model.options import GenerationOptions
from model.pretrained.encoder_folder import load_encoder
from model.programs.export import export_programs
from model.programs.load import load_artifact, load_programs
from model.quality_file import Quality
from model.refusal import Refusal
from tests.models import needs_open_clip, save_resnet, save_siglip, small_config
from training.archive import archive
from training.config import Export, load_config
from training.exporting.export import export
from training.exporting.precision_choice import choose_precision

GREEDY = GenerationOptions(num_beams=1, max_tokens=12)
OPTIONS = {
    "greedy": GREEDY,
    "greedy to the last position": GenerationOptions(num_beams=1, max_tokens=60, min_tokens=60),
    "beams": GenerationOptions(num_beams=5, num_captions=3, max_tokens=12),
    "beams of another length": GenerationOptions(
        num_beams=8, max_tokens=20, min_tokens=4, length_penalty=-0.5
    ),
    "one token": GenerationOptions(num_beams=2, max_tokens=1),
    "n-grams": GenerationOptions(num_beams=1, max_tokens=20, no_repeat_ngram_size=2),
    "n-grams of beams": GenerationOptions(num_beams=3, max_tokens=20, no_repeat_ngram_size=2),
    "penalty": GenerationOptions(num_beams=3, max_tokens=12, repetition_penalty=1.5),
    "prompt": GenerationOptions(num_beams=1, max_tokens=12, prompt="two red"),
    "prompt of beams": GenerationOptions(num_beams=4, max_tokens=12, prompt="a"),
    "characters": GenerationOptions(num_beams=1, max_tokens=20, max_characters=16),
    "characters of beams": GenerationOptions(
        num_beams=4, num_captions=2, max_tokens=20, max_characters=18, prompt="a"
    ),
    "draw": GenerationOptions(num_beams=1, max_tokens=12, temperature=0.9, seed=3),
    "draw of few": GenerationOptions(
        num_beams=1, num_captions=3, max_tokens=12, temperature=1.3, top_k=20, top_p=0.8, seed=11
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint with drafts of its own captions and a quality head."""
    made = Checkpoint.load(tiny_checkpoint)
    artifact = eager_artifact(made)
    end = artifact.info["end_token_id"]
    plain = artifact.tokens(artifact.encode(pictures(8)), GREEDY)
    flat = np.array([token for ids in plain * 2 for token in [*ids, end]])
    made.drafts = count_drafts(flat, end, artifact.info["vocabulary"])
    torch.manual_seed(5)
    head = QualityHead(made.captioner.gpt2.config.n_embd, 8).eval()
    made.quality = Quality(head, {"captions": 3})
    folder = tmp_path_factory.mktemp("programs") / "checkpoint"
    made.save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    """Programs of it."""
    export_programs(checkpoint, checkpoint.with_name("programs"), {"test": {"CIDEr": 1.5}})
    return checkpoint.with_name("programs")


@pytest.fixture(scope="module")
def programs(folder: Path) -> Artifact:
    return load_programs(folder)


@pytest.fixture(scope="module")
def torchscript(checkpoint: Path) -> Artifact:
    export_torchscript(checkpoint, checkpoint.with_name("artifact"))
    return Artifact.load(checkpoint.with_name("artifact"))


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "copied")


def pictures(count: int) -> Tensor:
    """Normalised pixels [count, 3, 32, 32]; of more pictures the first are those of fewer."""
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))[:count]


def assert_same(found: Artifact, expected: Artifact, options: GenerationOptions, count: int):
    """The same tokens, reasons, texts, log-probabilities and qualities of so many pictures."""
    features = expected.encode(pictures(count))
    torch.testing.assert_close(found.encode(pictures(count)), features, atol=1e-5, rtol=0)
    ours, theirs = found.caption(features, options), expected.caption(features, options)
    assert len(ours) == count
    for mine, own in zip(sum(ours, []), sum(theirs, []), strict=True):
        assert (mine.ids, mine.text, mine.finish_reason) == (own.ids, own.text, own.finish_reason)
        assert mine.log_prob == pytest.approx(own.log_prob, abs=1e-3)
        assert mine.quality == pytest.approx(own.quality, abs=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_captions_are_those_of_the_torchscript_file(
    programs: Artifact, torchscript: Artifact, name: str
):
    assert programs.module.search.drafts is not None  # greedy search of one picture uses them
    assert_same(programs, torchscript, OPTIONS[name], 1)
    assert_same(programs, torchscript, OPTIONS[name], 5)


def test_given_captions_have_the_same_log_probabilities(programs: Artifact, torchscript: Artifact):
    features = torchscript.encode(pictures(3))
    for length in (1, 2, 9):
        tokens = torch.randint(300, (3, length), generator=torch.Generator().manual_seed(length))
        expected = torchscript.score(features, tokens)
        torch.testing.assert_close(programs.score(features, tokens), expected, atol=1e-4, rtol=0)


def test_a_picture_is_as_unusual_as_to_the_torchscript_file(
    programs: Artifact, torchscript: Artifact
):
    features = torchscript.encode(pictures(3))
    for own, expected in zip(programs.ood(features), torchscript.ood(features), strict=True):
        torch.testing.assert_close(own, expected)


def test_all_is_written_down_as_of_the_torchscript_file(programs: Artifact, torchscript: Artifact):
    own = {"sha256", "onednn", "evaluation"}
    known = {key: value for key, value in torchscript.info.items() if key not in own}
    assert {key: programs.info[key] for key in known} == known
    assert programs.info["evaluation"] == {"test": {"CIDEr": 1.5}}
    assert programs.defaults == torchscript.defaults


def test_every_weight_is_in_the_files_once(folder: Path, checkpoint: Path):
    stored = sum(
        value.nbytes
        for file in (folder / "programs").glob("*.pt2")
        for value in torch.export.load(file).state_dict.values()
    )
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    assert stored < weights * 1.02


def test_layers_are_packed_when_loaded_and_compute_the_same_where_they_cannot_be(
    folder: Path, programs: Artifact, torchscript: Artifact, monkeypatch: pytest.MonkeyPatch
):
    layers = [each for each in programs.module.modules() if isinstance(each, PackedLinear)]
    # Of two layers of the encoder 4 each and 2 more, 2 of the mapper, 4 of each of two of GPT-2,
    # and its output; the first weights are gone.
    assert len(layers) == 2 * 4 + 2 + 2 + 2 * 4 + 1
    assert not any(layer.weight.numel() for layer in layers)
    monkeypatch.setattr("model.programs.load.onednn_available", lambda: False)
    plain = load_programs(folder)
    assert not [each for each in plain.module.modules() if isinstance(each, PackedLinear)]
    for name in ("greedy", "beams", "prompt of beams"):
        assert_same(plain, torchscript, OPTIONS[name], 3)


@pytest.mark.skipif(bool(unsupported_reason("bf16")), reason=unsupported_reason("bf16"))
def test_in_bf16_the_captions_are_those_of_the_torchscript_file(checkpoint: Path, tmp_path: Path):
    export_programs(checkpoint, tmp_path / "programs", None, "bf16")
    export_torchscript(checkpoint, tmp_path / "artifact", None, "bf16")
    sizes = [
        sum(each.stat().st_size for each in (folder / "programs").glob("decoder.pt2"))
        for folder in (tmp_path, checkpoint.parent / "programs")
    ]
    found, expected = load_artifact(tmp_path / "programs"), load_artifact(tmp_path / "artifact")
    assert found.info["precision"] == "bf16"
    assert sizes[0] < sizes[1] or not sizes[1]
    for options in OPTIONS.values():
        assert_same(found, expected, options, 3)


@pytest.mark.parametrize(
    ("encoder", "kind", "normalize"),
    [
        ("clip", "transformer", True),
        ("clip", "patch", False),
        ("siglip", "linear", False),
        pytest.param("resnet", "linear", True, marks=needs_open_clip),
    ],
)
def test_every_encoder_and_mapper_can_be_recorded(
    checkpoint: Path, encoder: str, kind: str, normalize: bool, tmp_path: Path
):
    own = Checkpoint.load(checkpoint)
    clip: ImageEncoder | None = own.captioner.clip
    if encoder != "clip":
        save = save_siglip if encoder == "siglip" else save_resnet
        clip = load_encoder(str(save(tmp_path / encoder)))[0]
    assert clip is not None
    feature = clip.shape("patches" if kind == "patch" else "pooled")
    prefix = feature[0] if kind == "patch" else 3
    preprocessing = dataclasses.replace(own.captioner.config.preprocessing, size=clip.image_size)
    torch.manual_seed(0)
    config = small_config(
        clip=clip.config,
        preprocessing=preprocessing,
        feature_width=feature[-1],
        mapper=MapperConfig(kind, prefix, clip_length=2, layers=2, heads=2),
        gpt2={**own.captioner.config.gpt2, "n_layer": 1},
        normalize_feature=normalize,
    )
    other = Checkpoint(ClipCap(config).eval(), own.tokenizer, GREEDY)
    other.save(tmp_path / "checkpoint")
    export_programs(tmp_path / "checkpoint", tmp_path / "programs")
    found, expected = load_artifact(tmp_path / "programs"), eager_artifact(other)
    for count in (1, 3):
        pixels = torch.randn(count, 3, clip.image_size, clip.image_size)
        features = expected.encode(pixels)
        torch.testing.assert_close(found.encode(pixels), features, atol=1e-5, rtol=1e-5)
        for name in ("greedy", "beams"):
            assert found.tokens(features, OPTIONS[name]) == expected.tokens(features, OPTIONS[name])


def test_loading_says_nothing_and_needs_no_transformers(folder: Path):
    code = (
        "import sys; from model.programs.load import load_programs\n"
        f"load_programs({str(folder)!r})\n"
        "print(*{'transformers', 'pytorch_lightning', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_program_runs_where_our_code_is_not(folder: Path, programs: Artifact, tmp_path: Path):
    torch.save(pictures(3), tmp_path / "pixels.pt")
    code = (
        "import sys, torch\n"
        f"encode = torch.export.load({str(folder / 'programs/encoder.pt2')!r}).module()\n"
        f"torch.save(encode(torch.load({str(tmp_path / 'pixels.pt')!r})), 'features.pt')\n"
        "assert 'model' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    found = torch.load(tmp_path / "features.pt")
    torch.testing.assert_close(found, programs.encode(pictures(3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["captioner.json", "tokenizer.json", "programs/decoder.pt2",
                                  "programs/tables.pt"])  # fmt: skip
def test_a_missing_file_is_refused_by_name(copied: Path, name: str):
    (copied / name).unlink()
    with pytest.raises(Refusal, match=f"{name} is missing; export the captioner again"):
        load_artifact(copied)


@pytest.mark.parametrize("damage", ["a bit", "cut short", "empty", "of another part"])
def test_a_damaged_program_is_refused(copied: Path, damage: str):
    file = copied / "programs" / "mapper.pt2"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    other = (copied / "programs" / "output.pt2").read_bytes()
    changed = {"cut short": data[: len(data) // 2], "empty": b"", "of another part": other}
    file.write_bytes(changed.get(damage, data))
    with pytest.raises(Refusal, match=r"mapper.pt2 is not the file captioner.json was written for"):
        load_artifact(copied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "has format 2; this version reads 3"),
        ({"programs": None}, "lacks programs; export the captioner again"),
        ({"precision": "fp16"}, r"exported in fp16, which programs cannot hold; .*precision=fp32"),
    ],
)
def test_another_description_is_refused(copied: Path, change: dict[str, object], words: str):
    file = copied / "captioner.json"
    info = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({k: v for k, v in info.items() if v is not None}))
    with pytest.raises(Refusal, match=words):
        load_artifact(copied)


def test_a_server_is_told_which_format_it_needs(folder: Path, tmp_path: Path):
    with pytest.raises(Refusal, match=r"holds programs of torch.export.*format=torchscript"):
        Artifact.load(folder)
    with pytest.raises(Refusal, match=r"an archive needs captioner.pt.*format=torchscript"):
        archive(folder, tmp_path / "clipcap.mar")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_cannot_be_recorded_is_refused(
    checkpoint: Path, tmp_path: Path, precision: str
):
    with pytest.raises(Refusal, match=rf"cannot be exported in {precision}: .*fp32 or bf16, or"):
        export_programs(checkpoint, tmp_path / "programs", None, precision)
    assert not (tmp_path / "programs").exists()


def test_auto_takes_a_precision_of_the_format(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.exporting.precision_choice.unsupported_reason", lambda _: "")
    monkeypatch.setattr("training.exporting.precision_choice.multiplies_bf16", lambda: False)
    gate = {"same": 1.0, "passes": True}
    monkeypatch.setattr(
        "training.exporting.precision_choice.valid_gates", lambda _: {"fp16": gate, "fp32": gate}
    )
    assert choose_precision("auto", {}, 1 << 30) == "fp16"
    assert choose_precision("auto", {}, 1 << 30, ("fp32", "bf16")) == "fp32"


def test_the_command_replaces_an_export_of_the_other_format(checkpoint: Path, tmp_path: Path):
    assert load_config(["export.format=programs"]).export.format == "programs"
    export_torchscript(checkpoint, tmp_path / "out")
    export(Export(str(checkpoint), str(tmp_path / "out"), "fp32", "programs", None))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"captioner.json", "ood.pt", "tokenizer.json", "programs"}
    export_torchscript(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "captioner.pt").is_file()


def test_an_export_that_says_something_else_is_not_put_in_place(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def tampered(folder: Path, *others: object) -> nn.Module:
        module = plain(folder, *others)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        return module

    generator = torch.Generator().manual_seed(0)
    import model.programs.export as exporter

    plain = exporter.plain_vision
    monkeypatch.setattr(exporter, "plain_vision", tampered)
    settings = Export(str(checkpoint), str(tmp_path / "out"), "fp32", "programs", None)
    with pytest.raises(Refusal, match="the exported encoder differs by"):
        export(settings)
    assert not (tmp_path / "out").exists()
