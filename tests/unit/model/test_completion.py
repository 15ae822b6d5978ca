"""A published weights file becomes a checkpoint that exports, serves and says the same."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, PreTrainedTokenizerFast

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.preprocessing import Preprocessing
from model.options import GenerationOptions
from model.pretrained import published
from model.pretrained.completion import assumptions, complete
from model.pretrained.encoder_folder import load_encoder
from model.pretrained.preprocessor_config import write_preprocessing
from model.pretrained.weights_file import FULL_STOP_ID, read_published
from model.refusal import Refusal
from tests.models import PREPROCESSING, WORDS, needs_open_clip, save_resnet, save_siglip
from tests.published_weights import captioner_of, weights_file
from training.captioner.tokenizer import train_tokenizer
from training.config import Export
from training.exporting.export import export


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["model.pretrained.published", *map(str, words)])
    published.main()


@pytest.mark.parametrize("kind", ["mlp", "transformer", "linear"])
def test_a_published_file_becomes_an_artifact_that_says_the_same(
    kind: str,
    tiny_clip: Path,
    gpt2_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    file, out = weights_file(tmp_path, kind), tmp_path / "checkpoint"
    run(monkeypatch, file, "--out", out, "--clip", tiny_clip, "--gpt2-tokenizer", gpt2_tokenizer)
    assert f"make serve CHECKPOINT={out}" in capsys.readouterr().out
    # The export compares with Hugging Face's own `generate` before it puts itself in place.
    export(Export(str(out), str(tmp_path / "artifact"), "fp32", "torchscript", None))
    artifact = Artifact.load(tmp_path / "artifact")
    assert (artifact.defaults.num_beams, artifact.info["end_token_id"]) == (5, FULL_STOP_ID)

    original = read_published(file)
    clip = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        features = clip.visual_projection(clip.vision_model(pixels).pooler_output)
        expected = original.prefix(features)
        torch.testing.assert_close(artifact.module.prefix(artifact.encode(pixels)), expected)
    eager = eager_artifact(Checkpoint.load(out))
    for options in (GenerationOptions(1, max_tokens=12), GenerationOptions(5, 2, max_tokens=12)):
        for mine, theirs in zip(
            artifact.caption(features, options), eager.caption(features, options), strict=True
        ):
            assert [caption.text for caption in mine] == [caption.text for caption in theirs]


@pytest.mark.parametrize(
    ("save", "width"), [(save_siglip, 32), pytest.param(save_resnet, 24, marks=needs_open_clip)]
)
@torch.inference_mode()
def test_it_takes_any_encoder_of_its_width(
    save: Callable[[Path], Path], width: int, gpt2_tokenizer: Path, tmp_path: Path
):
    file, folder = weights_file(tmp_path, "transformer", width), save(tmp_path / "encoder")
    complete(read_published(file), file, str(folder), str(gpt2_tokenizer)).save(tmp_path / "out")
    captioner = Checkpoint.load(tmp_path / "out").captioner
    encoder, preprocessing = load_encoder(str(folder))
    pixels = torch.randn(2, 3, preprocessing.size, preprocessing.size)
    expected = encoder.eval().encode(pixels, "pooled")
    torch.testing.assert_close(captioner.encode(pixels), expected)
    assert captioner.config.preprocessing == preprocessing


def test_a_caption_ends_with_the_full_stop_and_shows_it(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path
):
    file = weights_file(tmp_path)
    checkpoint = complete(read_published(file), file, str(tiny_clip), str(gpt2_tokenizer))
    artifact = eager_artifact(checkpoint)
    assert (
        artifact.text([*checkpoint.tokenizer.encode("two boats").ids, FULL_STOP_ID]) == "two boats."
    )
    assert checkpoint.captioner.config.preprocessing == PREPROCESSING


def test_the_model_card_says_where_the_parts_come_from(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path
):
    file = weights_file(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    checkpoint = complete(read_published(file), file, str(tiny_clip), str(gpt2_tokenizer))
    checkpoint.save(tmp_path / "checkpoint")
    card = (tmp_path / "checkpoint" / "README.md").read_text()
    for part in ("mlp_weights.pt", digest, str(tiny_clip), str(gpt2_tokenizer)):
        assert f"`{part}`" in card
    assert str(tiny_clip) not in (tmp_path / "checkpoint" / "config.json").read_text()
    Checkpoint.load(tmp_path / "checkpoint").save(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card


@pytest.mark.parametrize(("kind", "does"), [("mlp", "is not"), ("transformer", "is")])
def test_what_the_file_does_not_say_is_printed_and_in_the_card(
    kind: str,
    does: str,
    tiny_clip: Path,
    gpt2_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out, file = tmp_path / "out", weights_file(tmp_path, kind)
    run(monkeypatch, file, "--out", out, "--clip", tiny_clip, "--gpt2-tokenizer", gpt2_tokenizer)
    said, card = capsys.readouterr().out, (out / "README.md").read_text()
    option = "--normalize" if kind == "mlp" else "--no-normalize"
    heads = "GPT-2 has 2 heads" + (" and the mapper 8" if kind == "transformer" else "")
    for words in (
        f"he feature {does} divided by its norm, as the authors did with the {kind} mapper; for a "
        f"captioner that was trained otherwise give {option}",
        "a caption ends at the token '.', as the authors' captions do; for another one give --end",
        f"{heads}, as in those that were published",
    ):
        assert words in said
        assert words[1:] in card
    assert "the encoder is" not in said  # it was given
    assert f"The image feature {does} divided by its norm." in card
    for flag, normalized in (("--normalize", True), ("--no-normalize", False)):
        run(
            monkeypatch, file, "--out", out, flag, "--end-token", "<|endoftext|>",
            *("--clip", tiny_clip, "--gpt2-tokenizer", tokenizer_with_end(tmp_path)),
        )  # fmt: skip
        config = Checkpoint.load(out).captioner.config
        assert config.normalize_feature == normalized
        assert (config.end_token_id, config.end_token_is_text) == (0, False)
        assert config.gpt2["eos_token_id"] == 0
        card = (out / "README.md").read_text()
        assert "A caption ends at the token `<|endoftext|>`." in card
        assert capsys.readouterr().out.count("assumed: ") == 1  # the numbers of heads


def tokenizer_with_end(folder: Path) -> Path:
    """A small tokenizer of 300 tokens, with an end token as GPT-2's has it."""
    out = folder / "tokenizer-with-end"
    PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(WORDS, 300)).save_pretrained(out)
    return out


def test_a_clip_that_only_the_width_tells_is_named_with_those_of_the_same_width():
    config = captioner_of("mlp", 512).config
    said = "; ".join(assumptions(config, None, None, None))
    assert (
        "the encoder is openai/clip-vit-base-patch32, whose features are 512 wide (ViT-B/16 and "
        "RN101 too); for another one give --clip"
    ) in said
    assert "RN50x4" not in said
    said = "; ".join(assumptions(captioner_of("mlp", 640).config, None, True, "."))
    assert "the encoder is timm/resnet50x4_clip.openai, whose features are 640 wide; for" in said
    assert "norm" not in said


def test_a_caption_may_end_with_another_token_of_the_text(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path
):
    file, places = weights_file(tmp_path), (str(tiny_clip), str(gpt2_tokenizer))
    checkpoint = complete(read_published(file), file, *places, end_token="!")
    end = checkpoint.tokenizer.token_to_id("!")
    config = checkpoint.captioner.config
    assert (config.end_token_id, config.end_token_is_text) == (end, True)
    assert checkpoint.card is not None
    assert "A caption ends at the token `!`." in checkpoint.card
    words = r"--end-token is 'two boats', which the tokenizer of .* with \d+ tokens; give one"
    with pytest.raises(Refusal, match=words):
        complete(read_published(file), file, *places, end_token="two boats")


def test_features_of_another_width_are_refused_with_both_numbers(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path
):
    file = weights_file(tmp_path, width=48)
    with pytest.raises(Refusal, match=r"features 48 wide, but those of .* are 24 wide; .* --clip"):
        complete(read_published(file), file, str(tiny_clip), str(gpt2_tokenizer))


def test_an_encoder_for_pictures_of_another_size_is_refused(
    tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path
):
    other = shutil.copytree(tiny_clip, tmp_path / "clip")
    write_preprocessing(Preprocessing(48, PREPROCESSING.mean, PREPROCESSING.std), other)
    file = weights_file(tmp_path)
    with pytest.raises(Refusal, match=r"makes 48 pixels .* takes 32 .*config\.json"):
        complete(read_published(file), file, str(other), str(gpt2_tokenizer))


@pytest.mark.parametrize(
    ("words", "vocabulary", "specials"),
    [
        ("has 300 tokens and writes token 13 as '-'; .* needs 300", 300, ("<|endoftext|>",)),
        ("has 300 tokens and writes token 13 as '.'; .* needs 310", 310, ()),
    ],
)
def test_another_tokenizer_is_refused(
    tiny_clip: Path, tmp_path: Path, words: str, vocabulary: int, specials: tuple[str, ...]
):
    file, folder = weights_file(tmp_path, vocabulary=vocabulary), tmp_path / "tokenizer"
    bpe = train_tokenizer(WORDS, 300, specials)
    PreTrainedTokenizerFast(tokenizer_object=bpe).save_pretrained(folder)
    with pytest.raises(Refusal, match=words):
        complete(read_published(file), file, str(tiny_clip), str(folder))


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (640, r"no image encoder at 'timm/resnet50x4_clip\.openai': .* folder with --clip"),
        (48, "features 48 wide, and no CLIP of that width is known .* with --clip"),
    ],
)
def test_a_width_without_a_clip_at_hand_is_refused(
    tmp_path: Path, width: int, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = weights_file(tmp_path, width=width)
    with pytest.raises(Refusal, match=words):
        complete(read_published(file), file, None, "gpt2")


def test_without_network_one_line_says_what_to_fetch(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "checkpoint"
    for words, name, option in (
        (["--out", out], "openai/clip-vit-base-patch32", "--clip"),
        (["--out", out, "--clip", tiny_clip], "gpt2", "--gpt2-tokenizer"),
    ):
        file = weights_file(tmp_path, width=24 if "--clip" in words else 512)
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, file, *words)
        message = str(caught.value)
        assert message.startswith("error: no ")
        assert f"https://huggingface.co/{name} into a folder" in message
        assert message.endswith(f"give that folder with {option}.")
        assert len(message.splitlines()) == 1
        assert not out.exists()


def test_a_damaged_tokenizer_is_one_line(tiny_clip: Path, gpt2_tokenizer: Path, tmp_path: Path):
    file, folder = weights_file(tmp_path), tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(Refusal) as caught:
        complete(read_published(file), file, str(tiny_clip), str(folder))
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
