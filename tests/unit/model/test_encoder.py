"""Every encoder gives its library's own feature, and the patches that its last layer reads."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BertConfig,
    CLIPVisionModelWithProjection,
    Siglip2Config,
)

from model.checkpoint import Checkpoint
from model.image.decode import load_image
from model.image.preprocessing import Preprocessing, to_pixels
from model.network.captioner import ClipCap
from model.network.encoder import ClipEncoder, ImageEncoder, SiglipEncoder, build_encoder
from model.options import GenerationOptions
from model.pretrained.encoder_folder import load_encoder
from model.pretrained.hugging_face import load_clip
from model.refusal import Refusal
from tests.models import (
    RELATIVES,
    needs_open_clip,
    save_relative,
    save_resnet,
    save_siglip,
    small_config,
)
from tests.pictures import encoded, picture
from training.config import Export
from training.encoding.encoder import vision_sha256
from training.exporting.export import export

JPEG = encoded(picture((90, 60)), "JPEG")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("encoder") / "siglip")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with a small ResNet, in the files of open_clip's hub repositories."""
    return save_resnet(tmp_path_factory.mktemp("encoder") / "resnet")


@pytest.fixture(scope="module", params=RELATIVES)
def relative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A relative of CLIP, such as Chinese CLIP."""
    return save_relative(request.param, tmp_path_factory.mktemp("encoder") / request.param)


def theirs(folder: Path, backend: str = "pil") -> tuple[torch.nn.Module, Tensor]:
    """Hugging Face's own model, and the pixels its own processor makes of the JPEG."""
    processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    pixels = processor(load_image(JPEG), return_tensors="pt")["pixel_values"]
    return AutoModel.from_pretrained(folder).eval(), pixels


@pytest.mark.parametrize("name", ["tiny_clip", "siglip"])
@torch.inference_mode()
def test_features_and_patches_of_an_image_file_are_hugging_face_s(
    name: str, request: pytest.FixtureRequest
):
    check_features(request.getfixturevalue(name))


@torch.inference_mode()
def test_features_and_patches_of_a_relative_of_clip_are_hugging_face_s(relative: Path):
    check_features(relative)


def check_features(folder: Path) -> None:
    encoder, preprocessing = load_encoder(str(folder))
    ours = to_pixels(load_image(JPEG), preprocessing)[None]
    model, pixels = theirs(folder)
    seen: list[Tensor] = []
    layers = getattr(model.vision_model, "encoder", model.vision_model).layers
    last = layers[-1]
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    expected = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(encoder.eval().encode(ours, "pooled"), expected, atol=1e-4, rtol=0)
    patches = encoder.encode(ours, "patches")
    torch.testing.assert_close(patches, seen[0][:, -16:], atol=1e-4, rtol=0)
    assert encoder.shape("pooled") == expected.shape[1:]
    assert encoder.shape("patches") == patches.shape[1:]


@needs_open_clip
@torch.inference_mode()
def test_features_and_patches_of_an_image_file_are_open_clip_s(resnet: Path):
    import open_clip

    encoder, preprocessing = load_encoder(str(resnet))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{resnet}")
    pixels = transform(load_image(JPEG))[None]
    ours = to_pixels(load_image(JPEG), preprocessing)[None]
    torch.testing.assert_close(ours, pixels, atol=1e-5, rtol=0)
    seen: list[Tensor] = []
    model.visual.attnpool.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    expected = model.eval().encode_image(pixels)
    torch.testing.assert_close(encoder.eval().encode(ours, "pooled"), expected, atol=1e-4, rtol=0)
    patches = encoder.encode(ours, "patches")
    grid = seen[0]  # [1, W, 2, 2]
    torch.testing.assert_close(patches[0, 1], grid[0, :, 0, 1], atol=1e-4, rtol=0)
    assert patches.shape[1:] == encoder.shape("patches") == (4, 256)


def test_siglip_s_square_is_not_cropped(siglip: Path):
    _, preprocessing = load_encoder(str(siglip))
    half = (0.5, 0.5, 0.5)
    assert preprocessing == Preprocessing(32, half, half, "bicubic", crop=False)


@pytest.mark.parametrize("kind", ["linear", "patch"])
@pytest.mark.parametrize("name", ["siglip", pytest.param("resnet", marks=needs_open_clip)])
def test_a_captioner_of_any_encoder_is_exported_as_hugging_face_generates(
    name: str, kind: str, tiny_checkpoint: Path, request: pytest.FixtureRequest, tmp_path: Path
):
    """`export` compares with Hugging Face's `generate` before it puts itself in place."""
    encoder, preprocessing = load_encoder(str(request.getfixturevalue(name)))
    captioner, tokenizer = with_encoder(encoder, preprocessing, kind, tiny_checkpoint)
    Checkpoint(captioner, tokenizer, GenerationOptions(max_tokens=8)).save(tmp_path / "checkpoint")
    weights = Checkpoint.load(tmp_path / "checkpoint").captioner.clip
    assert weights is not None
    assert vision_sha256(weights) == vision_sha256(encoder)
    export(
        Export(
            str(tmp_path / "checkpoint"), str(tmp_path / "artifact"), "fp32", "torchscript", None
        )
    )


def test_a_captioner_of_a_relative_of_clip_is_exported_as_hugging_face_generates(
    relative: Path, tiny_checkpoint: Path, tmp_path: Path
):
    encoder, preprocessing = load_encoder(str(relative))
    captioner, tokenizer = with_encoder(encoder, preprocessing, "linear", tiny_checkpoint)
    Checkpoint(captioner, tokenizer, GenerationOptions(max_tokens=8)).save(tmp_path / "checkpoint")
    export(
        Export(
            str(tmp_path / "checkpoint"), str(tmp_path / "artifact"), "fp32", "torchscript", None
        )
    )


def with_encoder(
    encoder: ImageEncoder, preprocessing: Preprocessing, kind: str, other: Path
) -> tuple[ClipCap, object]:
    """A captioner with this encoder, and the language model's sizes of another checkpoint."""
    loaded = Checkpoint.load(other)
    mapper = dataclasses.replace(loaded.captioner.config.mapper, kind=kind)
    shape = encoder.shape(mapper.feature_kind)
    if kind == "patch":
        mapper = dataclasses.replace(mapper, prefix_length=shape[0])
    config = small_config(
        clip=encoder.config,
        gpt2=loaded.captioner.config.gpt2,
        mapper=mapper,
        preprocessing=preprocessing,
        feature_width=shape[-1],
    )
    captioner = ClipCap(config).eval()
    captioner.clip = encoder.eval()
    return captioner, loaded.tokenizer


def test_an_image_tower_alone_is_loaded_too(tiny_clip: Path, siglip: Path, tmp_path: Path):
    for folder, kind in ((tiny_clip, ClipEncoder), (siglip, SiglipEncoder)):
        whole, preprocessing = load_encoder(str(folder))
        tower = (
            load_clip(str(folder), CLIPVisionModelWithProjection)
            if kind is ClipEncoder
            else AutoModel.from_pretrained(folder).vision_model
        )
        alone = tmp_path / folder.name
        tower.save_pretrained(alone)
        name = "preprocessor_config.json"
        (alone / name).write_bytes((folder / name).read_bytes())
        found, same = load_encoder(str(alone))
        assert isinstance(found, kind)
        assert vision_sha256(found) == vision_sha256(whole)
        assert same == preprocessing


def bert(folder: Path) -> None:
    BertConfig().save_pretrained(folder)


def empty(folder: Path) -> None:
    folder.mkdir()


def naflex(folder: Path) -> None:
    Siglip2Config().save_pretrained(folder)


def transformer_of_open_clip(folder: Path) -> None:
    folder.mkdir()
    sizes = {"embed_dim": 8, "vision_cfg": {"layers": 12, "width": 64, "image_size": 32}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bert, r"a model of type 'bert'; an image encoder is a CLIP or SigLIP .* ResNet of open"),
        (
            naflex,
            r"any shape \(NaFlex, model_type siglip2\), .* such as google/siglip2-base",
        ),
        (empty, r"no config\.json that names a model; an image encoder is"),
        (transformer_of_open_clip, r"describes a vision transformer; only ResNets are read"),
    ],
)
def test_what_is_no_image_encoder_is_one_line(
    make: Callable[[Path], None], words: str, tmp_path: Path
):
    make(tmp_path / "it")
    with pytest.raises(Refusal, match=words) as caught:
        load_encoder(str(tmp_path / "it"))
    assert len(str(caught.value).splitlines()) == 1


def test_without_open_clip_the_refusal_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "open_clip.modified_resnet", None)
    config = {"model_type": "open_clip_resnet", "image_size": 64, "width": 8, "embed_dim": 24}
    with pytest.raises(Refusal, match=r"needs open_clip, .* pip install -e '\.\[openclip\]'"):
        build_encoder({**config, "layers": [1, 1, 1, 1]})


def test_an_unknown_encoder_in_a_config_is_refused_with_the_known_ones():
    with pytest.raises(Refusal, match="model_type is 'vgg'; it must be clip_vision_model, siglip_"):
        build_encoder({"model_type": "vgg"})
