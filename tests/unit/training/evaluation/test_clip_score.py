"""CLIPScore and RefCLIPScore, worked out by hand and by Hugging Face's own calls."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from model.image.preprocessing import to_pixels
from model.pretrained.preprocessor_config import read_preprocessing
from model.refusal import Refusal
from training.config import Config, Evaluate
from training.data.dataset import CaptionDataset
from training.evaluation.scores.clip_score import ClipScorer, clip_score, ref_clip_score

CPU = torch.device("cpu")


def test_the_formulas_by_hand():
    images = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    captions = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.0, 1.0]])
    # Cosines 0.6, -0.6 and 1: times 2.5 they are 1.5, cut at 0, and 2.5.
    found = clip_score(images, captions)
    assert found.tolist() == pytest.approx([1.5, 0.0, 2.5])
    # Harmonic means: 2 * 1.5 * 0.5 / 2 = 0.75; 0 with 0.9; 0 because -0.2 is cut at 0.
    both = ref_clip_score(found, torch.tensor([0.5, 0.9, -0.2]))
    assert both.tolist() == pytest.approx([0.75, 0.0, 0.0])
    nothing = ref_clip_score(torch.zeros(1), torch.zeros(1))
    assert nothing.tolist() == [0.0]  # and not NaN


@pytest.fixture
def settings(tiny_run: Config, tiny_clip: Path) -> Evaluate:
    return dataclasses.replace(tiny_run.evaluate, clip=str(tiny_clip), batch_size=2)


def test_scores_of_a_small_clip_are_those_of_separate_calls(
    tiny_scenes: Path, tiny_clip: Path, settings: Evaluate
):
    dataset = CaptionDataset.load(tiny_scenes)
    ids = list(dataset.ids("test"))[:3]
    generated = dict(zip(ids, ["a red boat", "", "two birds over a snowy lake"], strict=True))
    scorer = ClipScorer(dataset, settings, CPU)
    figures = scorer.figures(generated)
    # Each text and picture on its own, without padding.
    clip, tokenizer = (
        CLIPModel.from_pretrained(tiny_clip).eval(),
        AutoTokenizer.from_pretrained(tiny_clip),
    )
    preprocessing = read_preprocessing(str(tiny_clip))

    def text(words: str) -> torch.Tensor:
        tokens = tokenizer([f"A photo depicts {words}"], return_tensors="pt")["input_ids"]
        tokens = torch.cat([tokens[:, :24][:, :-1], tokens[:, -1:]], 1)  # the end token stays
        return clip.text_projection(clip.text_model(input_ids=tokens).pooler_output)[0]

    plain, with_references = [], []
    with torch.no_grad():
        for i, caption in generated.items():
            with Image.open(dataset.files[i]) as image:
                pixels = to_pixels(image.convert("RGB"), preprocessing=preprocessing)
            vision = clip.vision_model(pixel_values=pixels[None])
            picture = clip.visual_projection(vision.pooler_output)[0]
            own = text(caption)
            cosine = torch.cosine_similarity(picture, own, dim=0).item()
            score = 2.5 * max(cosine, 0)
            closest = max(
                torch.cosine_similarity(own, text(r), dim=0).item() for r in dataset.captions[i]
            )
            plain.append(score)
            both = score + max(closest, 0)
            with_references.append(2 * score * max(closest, 0) / both if both else 0.0)
    for i, one, two in zip(ids, plain, with_references, strict=True):
        assert scorer.scores[i] == pytest.approx((one, two), abs=1e-5)
    assert figures["CLIPScore"] == pytest.approx(sum(plain) / 3, abs=1e-5)
    assert figures["RefCLIPScore"] == pytest.approx(sum(with_references) / 3, abs=1e-5)
    assert len({round(each, 6) for each in with_references}) > 1


def test_long_texts_are_cut_and_counted(tiny_scenes: Path, settings: Evaluate):
    dataset = CaptionDataset.load(tiny_scenes)
    first, second = list(dataset.ids("test"))[:2]
    scorer = ClipScorer(dataset, settings, CPU)
    long = {first: "a boat " * 40, second: "a boat"}
    scorer.figures(long)
    references = [text for i in long for text in dataset.captions[i]]
    tokens = scorer.texts.tokenizer([f"A photo depicts {text}" for text in references])
    expected = sum(len(ids) > 24 for ids in tokens["input_ids"])
    note = scorer.note(long)
    assert f"of 2 captions 1, and of their references {expected}, were longer than its 24" in note
    # A picture is not read again for figures on several splits together.
    scorer.dataset = None  # type: ignore[assignment]
    assert set(scorer.figures({first: long[first]})) == {"CLIPScore", "RefCLIPScore"}


def test_a_folder_without_text_tower_is_refused(
    tiny_scenes: Path, tiny_checkpoint: Path, settings: Evaluate, tmp_path: Path
):
    empty = shutil.copytree(tiny_checkpoint, tmp_path / "no-clip")
    with pytest.raises(Refusal, match="CLIP"):
        ClipScorer(
            CaptionDataset.load(tiny_scenes), dataclasses.replace(settings, clip=str(empty)), CPU
        )
