"""Training CLIP, small but whole: from scratch, from a folder, with and without captions."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from model.image.decode import load_image
from model.image.preprocessing import to_pixels
from model.pretrained.hugging_face import load_clip
from model.pretrained.preprocessor_config import read_preprocessing
from model.refusal import Refusal
from tests.models import PREPROCESSING
from training import clip
from training.captioner.tokenizer import END
from training.config import load_config
from training.contrastive.anchor import Anchor, drift
from training.contrastive.captioned_pixels import caption_tokens
from training.contrastive.module import ContrastiveBatch, ContrastiveModule
from training.contrastive.regions import NO_LABEL, RegionHead, Regions
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder

#: 31 pictures in batches of 10: three steps an epoch.
STEPS = 3
SMALL = (
    "clip.model={width: 32, layers: 1, heads: 2, patch: 8, image_size: 32, text_layers: 1, "
    "text_width: 32, max_text: 24, projection: 24, vocabulary: 400}",
    "clip.captioner={prefix_length: 2, width: 32, layers: 1, heads: 2, word_dropout: 0.0, "
    "pair_prior: []}",
    "clip.batch_size=10",
    "clip.shift=2",
    "clip.epochs=1",
    "clip.precision=32-true",
    "clip.checkpoint_every=1",
    "clip.trainer.accelerator=cpu",
)
Run = Callable[..., Path]


@pytest.fixture
def run(tiny_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Path) -> Run:
    """The command with these settings; returns the model's folder."""

    def start(*settings: str, out: str = "out") -> Path:
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(pixels)
        given = [f"clip.data={tiny_scenes}", f"clip.out={folder}", *SMALL, *settings]
        monkeypatch.setattr(sys, "argv", ["training.clip", *given])
        clip.main()
        return folder / "model"

    return start


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded pictures, shared by all runs here."""
    return tmp_path_factory.mktemp("pixels")


def test_a_clip_from_scratch_is_a_hugging_face_folder(run: Run, tiny_scenes: Path):
    folder = run()
    model = CLIPModel.from_pretrained(folder)
    assert model.config.projection_dim == 24
    encoder = Encoder(str(folder))
    assert encoder.identity.shape == (24,)
    assert encoder.preprocessing == read_preprocessing(str(folder))
    assert encoder.preprocessing.size == 32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("two red boats")["input_ids"]
    assert ids[-1] == tokenizer.convert_tokens_to_ids(END) == model.config.text_config.eos_token_id
    assert ids[0] == model.config.text_config.bos_token_id
    figures = json.loads((folder / "retrieval.json").read_text())
    assert set(figures) == {
        f"{way}_R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)
    }
    assert all(0 <= value <= 1 for value in figures.values())
    readme = (folder / "README.md").read_text()
    assert "python -m training.clip" in readme
    assert str(tiny_scenes) in readme
    assert "31 training pictures" in readme


def test_another_training_keeps_what_the_user_wrote_into_the_readme(run: Run):
    file = run("clip.seed=17") / "README.md"
    file.write_text(f"{file.read_text()}\nMy own words.\n")
    assert "Seed 17," in file.read_text()
    run("clip.seed=18")
    text = file.read_text()
    assert text.endswith("\nMy own words.\n")
    assert "Seed 18," in text
    assert "Seed 17," not in text


@pytest.mark.parametrize("weight", [0, 1])
def test_a_clip_from_a_folder_is_fine_tuned(run: Run, tiny_clip: Path, weight: int):
    folder = run(f"clip.base={tiny_clip}", f"clip.caption_weight={weight}")
    assert read_preprocessing(str(folder)) == PREPROCESSING
    before, after = (load_clip(str(each), CLIPModel).state_dict() for each in (tiny_clip, folder))
    assert before.keys() == after.keys()  # the captioner is not part of it
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "visual_projection.weight" in moved
    assert "text_projection.weight" in moved
    change = before["visual_projection.weight"] - after["visual_projection.weight"]
    assert change.abs().max() < 0.1
    tokenizers = [AutoTokenizer.from_pretrained(each) for each in (tiny_clip, folder)]
    first, second = (tokenizer("a bird over a lake")["input_ids"] for tokenizer in tokenizers)
    assert first == second


def test_an_anchor_keeps_features_close_to_those_of_the_base(
    run: Run, tiny_clip: Path, tiny_scenes: Path
):
    base = load_clip(str(tiny_clip), CLIPModel).eval()
    dataset = CaptionDataset.load(tiny_scenes)
    files = [dataset.files[i] for i in dataset.ids("val")]
    pixels = torch.stack([to_pixels(load_image(f.read_bytes()), PREPROCESSING) for f in files])
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    tokens = caption_tokens(dataset, "val", tokenizer, 24)[:, 0].long()
    anchor, moved = Anchor(base), []
    for weight in (0, 100):
        settings = (f"clip.anchor_weight={weight}", "clip.epochs=4", "clip.caption_weight=0")
        folder = run(f"clip.base={tiny_clip}", *settings, out=f"w{weight}")
        tuned = load_clip(str(folder), CLIPModel).eval()
        assert tuned.state_dict().keys() == base.state_dict().keys()  # the anchor is not in it
        with torch.inference_mode():
            images = drift(Anchor(tuned).images(pixels), anchor.images(pixels)).item()
            moved.append((images, drift(Anchor(tuned).texts(tokens), anchor.texts(tokens)).item()))
    (images, texts), (images_kept, texts_kept) = moved
    assert images_kept < images / 2
    assert texts_kept < texts / 2


def test_with_lora_only_the_layers_of_the_blocks_are_fine_tuned(run: Run, tiny_clip: Path):
    folder = run(f"clip.base={tiny_clip}", "clip.tuning=lora", "clip.lora.rank=2")
    before, after = (load_clip(str(each), CLIPModel).state_dict() for each in (tiny_clip, folder))
    assert before.keys() == after.keys()  # merged
    linear = re.compile(r".*layers.*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)\.weight")
    for name, value in before.items():
        change = after[name] - value
        assert bool(change.any()) == bool(linear.fullmatch(name)), name
        if change.any():
            assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


def test_boxes_are_learned_where_they_are_wanted(run: Run):
    folder = run("clip.region_weight=1", "clip.recolour=0.5", "clip.captioner.word_dropout=0.3")
    figures = json.loads((folder / "retrieval.json").read_text())
    assert 0 <= figures["region_category"] <= 1
    assert 0 < figures["region_attribute"] <= 1
    stored = load_file(folder / "model.safetensors")  # without what named the boxes
    assert stored.keys() == CLIPModel.from_pretrained(folder).state_dict().keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["clip.recolour=1"], r"clip.recolour is 1.0; it must be at least 0 and less than 1"),
        (["clip.captioner.word_dropout=-0.1"], r"clip.captioner.word_dropout is -0.1"),
        (["clip.tuning=lora"], r"clip.tuning is lora but clip.base is null: .* must learn"),
        (["clip.anchor_weight=1"], r"clip.anchor_weight is 1.0 but clip.base is null"),
        (["+clip.trainer.precision=16"], r"clip.trainer.precision cannot be set: set clip.prec"),
        (["clip.tuning=frozen"], r"clip.tuning is 'frozen'; it must be full or lora"),
        (["clip.recolour=0.2"], r"set clip.region_weight above 0 too"),
        (["clip.captioner.pair_prior=[red]", "clip.caption_weight=0"], r"caption_weight is 0.0"),
    ],
)
def test_settings_that_teach_nothing_are_refused(run: Run, settings: list[str], message: str):
    with pytest.raises(Refusal, match=message):
        run(*settings)


def test_nothing_is_learned_of_attributes_that_were_changed(tiny_clip: Path):
    settings = dataclasses.replace(
        load_config(SMALL).clip, shift=0, recolour=0.5, region_weight=1.0
    )
    model = load_clip(str(tiny_clip), CLIPModel)
    grid = model.config.vision_config.image_size // model.config.vision_config.patch_size
    width = model.config.projection_dim
    head = RegionHead(model.config.vision_config.hidden_size, width, grid, 2, 2)
    module = ContrastiveModule(model, settings, PREPROCESSING, 0, head, [21, 41]).eval()
    assert module.captioner is not None
    pixels, texts = example(module)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0]]]).expand(4, 1, 4)
    label = torch.ones(4, 1, dtype=torch.long)
    asked: dict[str, Tensor] = {}
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    look, contrastive, region = module.pooled_and_patches, module._contrastive, head.loss
    captioner = module.captioner.forward
    module.pooled_and_patches = lambda p: asked.update(pixels=p) or look(p)  # type: ignore
    module._contrastive = lambda f, t, p: asked.update(texts=t) or contrastive(f, t, p)  # type: ignore
    head.loss = lambda p, f, r: asked.update(r._asdict()) or region(p, f, r)  # type: ignore
    module.captioner.forward = lambda f, t, *a: asked.update(labels=t) or captioner(f, t, *a)  # type: ignore
    module.training_step((pixels, texts, Regions(boxes, label, label)), 0)
    same = asked["pixels"] == module.normalised(pixels)
    assert same[..., 16:].all()  # what lies beside the box
    changed = ~same.flatten(1).all(1)
    assert changed.sum() == 2
    assert asked["texts"].tolist() == texts[~changed].tolist()
    assert (asked["categories"] == 1).all()
    assert (asked["attributes"].flatten() == NO_LABEL).tolist() == changed.tolist()
    for row, told in enumerate(asked["labels"]):
        kept = [20, 22, 30, 40, 50, 51, 52, 53]
        kept += [] if changed[row] else [21, 41]
        assert [t for t in told.tolist() if t > 0] == [
            t for t in texts[row, 0, 1:].tolist() if t in kept
        ]


def test_no_caption_of_a_mirrored_picture_is_read(tiny_clip: Path):
    settings = dataclasses.replace(load_config(SMALL).clip, shift=0, mirror=0.5, region_weight=1.0)
    model = load_clip(str(tiny_clip), CLIPModel)
    grid = model.config.vision_config.image_size // model.config.vision_config.patch_size
    width = model.config.projection_dim
    head = RegionHead(model.config.vision_config.hidden_size, width, grid, 2, 2)
    module = ContrastiveModule(model, settings, PREPROCESSING, 0, head).eval()
    assert module.captioner is not None
    pixels, texts = example(module)
    boxes = torch.tensor([[[0.0, 0.0, 0.25, 1.0]]]).expand(4, 1, 4)
    label = torch.ones(4, 1, dtype=torch.long)
    asked: dict[str, Tensor] = {}
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    look, contrastive, region = module.pooled_and_patches, module._contrastive, head.loss
    captioner = module.captioner.forward
    module.pooled_and_patches = lambda p: asked.update(pixels=p) or look(p)  # type: ignore
    module._contrastive = lambda f, t, p: asked.update(texts=t[:, 0]) or contrastive(f, t, p)  # type: ignore
    head.loss = lambda p, f, r: asked.update(r._asdict()) or region(p, f, r)  # type: ignore
    module.captioner.forward = lambda f, t, *a: asked.update(labels=t) or captioner(f, t, *a)  # type: ignore
    module.training_step((pixels, texts, Regions(boxes, label, label)), 0)
    straight = module.normalised(pixels)
    own = (asked["pixels"] == straight).flatten(1).all(1)
    assert own.sum() == 2
    assert torch.equal(asked["pixels"][~own], straight[~own].flip(-1))
    assert asked["boxes"][own][..., 0].unique().tolist() == [0.0]
    assert asked["boxes"][~own][..., 0].unique().tolist() == [0.75]
    assert asked["texts"].tolist() == texts[own, 0].tolist()
    assert len(asked["labels"]) == 2


def test_a_seed_gives_the_same_bytes_and_so_does_a_run_that_was_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    random = (
        *("clip.epochs=2", "clip.region_weight=1", "clip.recolour=0.5", "clip.checkpoint_every=2"),
        *("clip.captioner.word_dropout=0.3", "clip.augmentation={crop: 0.2, colour: 0.1, blur: 1}"),
    )
    (tmp_path / "first" / "cache").mkdir(parents=True)  # its pictures are not decoded yet

    def weights(out: str, *settings: str) -> bytes:
        return (run(*random, *settings, out=out) / "model.safetensors").read_bytes()

    whole = weights("first")
    assert weights("second") == whole
    step, seen = ContrastiveModule.training_step, []

    def failing(module: ContrastiveModule, batch: ContrastiveBatch, index: int) -> Tensor:
        if module.global_step == STEPS + 2 and not seen.count("cut"):
            seen.append("cut")
            raise RuntimeError("power cut")
        seen.append(module.global_step)
        return step(module, batch, index)

    monkeypatch.setattr(ContrastiveModule, "training_step", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        weights("cut")
    with pytest.raises(Refusal, match=r"with other settings: clip.epochs was 2, is 3; .*=false"):
        weights("cut", "clip.epochs=3", "clip.resume=true")
    resumed = weights("cut", "clip.resume=true")
    assert seen == [0, 1, 2, 3, 4, "cut", 4, 5]
    assert resumed == whole
    assert weights("other", "clip.seed=2") != whole


def test_it_starts_anew_unless_it_is_told_to_resume(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(Refusal, match=r"clip.resume is true but .*last.ckpt does not exist; sta"):
        run("clip.resume=true")
    run()
    with pytest.raises(Refusal, match=r"clip.captioner.width was 32, is 16; .* clip.resume=false"):
        run("clip.captioner.width=16", "clip.resume=true")
    step, seen = ContrastiveModule.training_step, []

    def counted(module: ContrastiveModule, batch: ContrastiveBatch, index: int) -> Tensor:
        seen.append(module.global_step)
        return step(module, batch, index)

    monkeypatch.setattr(ContrastiveModule, "training_step", counted)
    run()
    assert seen == [0, 1, 2]
    assert "moved" not in capsys.readouterr().err  # the run before it had ended
    checkpoints = tmp_path / "out" / "checkpoints"
    assert [file.name for file in checkpoints.glob("last*")] == ["last.ckpt"]
    (checkpoints / "finished").unlink()  # as if it had been interrupted
    run()
    assert seen == [0, 1, 2, 0, 1, 2]
    assert f"moved to {checkpoints}.previous" in capsys.readouterr().err
    assert (tmp_path / "out" / "checkpoints.previous" / "last.ckpt").exists()


@pytest.fixture(scope="module")
def module(tiny_clip: Path) -> ContrastiveModule:
    settings = dataclasses.replace(load_config(SMALL).clip, shift=0)
    model = load_clip(str(tiny_clip), CLIPModel)
    return ContrastiveModule(model, settings, PREPROCESSING, 0).eval()


def example(module: ContrastiveModule) -> tuple[Tensor, Tensor]:
    """Four pictures with one caption each, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    texts = torch.tensor(
        [
            [1, 20, 21, 22, 0, 0, 0],
            [1, 30, 0, 0, 0, 0, 0],
            [1, 40, 41, 0, 0, 0, 0],
            [1, 50, 51, 52, 53, 0, 0],
        ]
    )
    return pixels, texts[:, None]


def test_features_are_hugging_face_s_whatever_the_padding(module: ContrastiveModule):
    pixels, texts = example(module)
    normalised = (pixels.float() / 255 - module.mean) / module.std
    with torch.inference_mode():
        found = module.clip(input_ids=texts[:, 0], pixel_values=normalised)
        images = F.normalize(module.pooled_and_patches(module.normalised(pixels))[0], dim=-1)
        words = F.normalize(module.text_features(texts[:, 0]), dim=-1)
    torch.testing.assert_close(images, found.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(words, found.text_embeds, atol=1e-5, rtol=0)


def test_repeated_captions_are_no_candidates_of_the_retrieval(
    module: ContrastiveModule, monkeypatch: pytest.MonkeyPatch
):
    pixels, texts = example(module)
    one, other = texts[:, 0], texts[:, 0].roll(1, 0)
    logged: list[dict[str, float]] = []
    monkeypatch.setattr(module, "log_dict", lambda figures, **_: logged.append(figures))
    # Image 0 has two captions and the others one, which the table of tokens repeats.
    table = torch.stack([one, torch.where(torch.arange(4)[:, None] == 0, other, one)], 1)
    for repeats in (1, 3):
        with torch.inference_mode():
            module.validation_step((pixels, table.repeat(1, repeats, 1), None), 0)
        assert module.validated[0][2].tolist() == [2, 1, 1, 1]
        assert len(module.validated[0][1]) == 5
        module.on_validation_epoch_end()
    assert logged[0] == logged[1]


def test_the_loss_is_clip_s_own_and_the_caption_s(
    module: ContrastiveModule, monkeypatch: pytest.MonkeyPatch
):
    logged: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value.item()}))
    pixels, texts = example(module)
    normalised = (pixels.float() / 255 - module.mean) / module.std
    with torch.inference_mode():
        total = module.training_step((pixels, texts, None), 0)
        expected = module.clip(
            input_ids=texts[:, 0], pixel_values=normalised, return_loss=True
        ).loss
        features = module.pooled_and_patches(module.normalised(pixels))[0]
        assert module.captioner is not None
        captions = ([20, 21, 22, 0], [30, 0], [40, 41, 0], [50, 51, 52, 53, 0])
        alone = [
            module.captioner(features[row : row + 1], torch.tensor([ids])) * len(ids)
            for row, ids in enumerate(captions)
        ]
    assert logged["contrastive"] == pytest.approx(expected.item(), abs=1e-4)
    caption = sum(each.item() for each in alone) / sum(len(ids) for ids in captions)
    assert logged["caption"] == pytest.approx(caption, abs=1e-4)
    assert total.item() == pytest.approx(logged["contrastive"] + logged["caption"], abs=1e-4)


def test_a_weight_of_zero_leaves_the_captioner_out(tiny_clip: Path):
    settings = dataclasses.replace(load_config(SMALL).clip, caption_weight=0.0)
    model = load_clip(str(tiny_clip), CLIPModel)
    assert ContrastiveModule(model, settings, PREPROCESSING, 0).captioner is None


def test_boxes_move_with_the_picture(tiny_clip: Path):
    settings = dataclasses.replace(load_config(SMALL).clip, shift=3)
    model = load_clip(str(tiny_clip), CLIPModel)
    module = ContrastiveModule(model, settings, PREPROCESSING, 0)
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    pixels[:, :, 8:16, 12:20] = 255
    boxes = torch.tensor([[[12.0, 8.0, 20.0, 16.0]]]) / 32
    label = torch.zeros(1, 1, dtype=torch.long)
    torch.manual_seed(0)
    for _ in range(20):
        moved, regions = module._shifted(pixels, Regions(boxes, label, label))
        rows, columns = (moved[0, 0] == 255).nonzero(as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert regions is not None
        assert [round(v * 32) for v in regions.boxes[0, 0].tolist()] == [int(v) for v in seen]


def test_pictures_are_shifted_by_no_more_than_asked(tiny_clip: Path):
    settings = dataclasses.replace(load_config(SMALL).clip, shift=2)
    model = load_clip(str(tiny_clip), CLIPModel)
    module = ContrastiveModule(model, settings, PREPROCESSING, 0)
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pixels[:, :, 16, 16] = 255
    torch.manual_seed(0)
    places = set()
    for _ in range(60):
        shifted, _ = module._shifted(pixels, None)
        assert shifted.shape == pixels.shape
        ((top, left),) = (shifted[0, 0] == 255).nonzero().tolist()
        places.add((top - 16, left - 16))
    assert {max(abs(a), abs(b)) for a, b in places} <= {0, 1, 2}
    assert len(places) > 10
