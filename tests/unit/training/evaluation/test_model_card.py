"""The model card: Hugging Face reads it, the figures are those found, and what was there stays."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard

from model.checkpoint import Checkpoint, weights_sha256
from model.config import MapperConfig
from model.refusal import Refusal
from training.config import Config
from training.data.dataset import CaptionDataset
from training.evaluation.report.model_card import write_card
from training.evaluation.report.retrained_card import parse_card, retrained
from training.evaluation.scores.checks import find_checks

TEST = {"CIDEr": 3.62, "human_CIDEr": 2.56, "CIDEr_fewer_references": 3.36, "BLEU_4": 0.7}
SCENES = {"precision": 0.97, "recall": 0.9, "faultless": 0.8, "thing_precision": 0.99,
          "colour_precision": 0.95}  # fmt: skip
FIGURES = {"test": TEST | SCENES, "compositional": {"CIDEr": 2.56, "BLEU_4": 0.59}}


@pytest.fixture
def folder(tiny_run: Config, tmp_path: Path) -> Path:
    """A trained checkpoint of one's own, without a card."""
    own = shutil.copytree(tiny_run.train.out, tmp_path / "mine")
    (own / "README.md").unlink(missing_ok=True)
    return own


def write(folder: Path, dataset: CaptionDataset, figures: dict[str, dict[str, float]]) -> ModelCard:
    checks = find_checks(dataset.root)
    return ModelCard.load(write_card(folder, Checkpoint.load(folder), dataset, figures, checks))


@pytest.fixture
def scenes(tiny_scenes: Path) -> CaptionDataset:
    return CaptionDataset.load(tiny_scenes)


def results(card: ModelCard) -> dict[tuple[str, str, str], float]:
    found: list[EvalResult] = card.data.eval_results
    return {(r.dataset_type, r.dataset_split, r.metric_type): r.metric_value for r in found}


def test_a_new_card_says_data_training_figures_limits_and_use(
    folder: Path, scenes: CaptionDataset, tiny_run: Config
):
    card = write(folder, scenes, FIGURES)
    assert card.data.pipeline_tag == "image-to-text"
    assert card.data.model_name == "mine"
    assert card.data.license is None
    assert results(card)["scenes", "test", "cider"] == 3.62
    assert results(card)["scenes", "compositional", "bleu_4"] == 0.59
    assert len(results(card)) == 9
    text = card.text
    for words in (
        "# Image captioner `mine`",
        f"| data | {scenes.description} |",
        "| training captions | 155 |",
        f"| encoder | {tiny_run.features.clip} |",
        "| language model | GPT-2 from scratch |",
        "| CIDEr | 3.620 | 2.560 |",
        "| scene precision | 97.0% |  |",
        "Pictures: test 12, compositional 7.",
        weights_sha256(folder),
        "- test: 3.0% of what its captions state is false, most often the colour (5.0% of those "
        "stated); "
        "20.0% of the captions have something false in them.",
        "a CIDEr of 3.36, a person 2.56: it keeps to the usual words",
        "- CIDEr falls from 3.62 on test to 2.56 on compositional.",
        "make serve CHECKPOINT=DIR",
    ):
        assert words in text
    assert "were not counted" not in text


def test_another_evaluation_takes_the_place_of_its_own_figures_only(
    folder: Path, scenes: CaptionDataset
):
    write(folder, scenes, FIGURES)
    file = folder / "README.md"
    text = file.read_text().replace("---\n", "---\nlicense: mit\n", 1)
    file.write_text(text.replace("## How to use it", "My own words.\n\n## How to use it"))
    other = dataclasses.replace(scenes, root=scenes.root.parent / "photos", description="")
    write(folder, other, {"test": {"CIDEr": 0.5}})
    before = file.read_text()
    card = write(folder, scenes, {"test": {"CIDEr": 1.25}})
    assert card.data.license == "mit"
    assert "My own words." in card.text
    assert card.text.count("## Figures on") == 2
    assert "3.620" not in card.text
    assert "False statements in its captions were not counted" in card.text
    found = results(card)
    assert found["scenes", "test", "cider"] == 1.25
    assert found["photos", "test", "cider"] == 0.5
    assert len(found) == 2
    write(folder, scenes, {"test": {"CIDEr": 1.25}})
    assert file.read_text() == str(card) != before
    assert [f.name for f in folder.iterdir() if "partial" in f.name] == []


def test_a_card_without_metadata_gets_some_and_keeps_its_words(
    folder: Path, scenes: CaptionDataset
):
    (folder / "README.md").write_text("# From a file\n\nCaptions end at the full stop.\n")
    card = write(folder, scenes, FIGURES)
    assert card.text.startswith("# From a file\n\nCaptions end at the full stop.\n\n<!-- eval")
    assert card.data.pipeline_tag == "image-to-text"
    assert "Data and training" not in card.text


def test_a_card_of_an_older_version_gets_the_new_table_in_place_of_its_own():
    old = "# Mine\n\n## Data and training\n\n| | |\n|---|---|\n| seed | 1 |\n\n## Use\n\nWords.\n"
    new = retrained(parse_card(old, Path("README.md")), MapperConfig(), {"seed": 1234})
    assert new.count("## Data and training") == 1
    assert "| seed | 1,234 |\n<!-- /training -->\n\n## Use\n\nWords.\n" in new
    assert "| seed | 1 |" not in new
    again = retrained(parse_card(new, Path("README.md")), MapperConfig("linear"), {"seed": 5})
    assert "| seed | 5 |\n<!-- /training -->\n\n## Use\n\nWords.\n" in again
    assert "kind is linear" in again
    assert again.count("<!-- training -->") == 1


def test_a_card_of_the_user_s_own_gets_the_table_at_its_end():
    card = parse_card("---\nlicense: mit\n---\n# Mine\n\nWords.\n", Path("README.md"))
    text = retrained(card, MapperConfig(), {"seed": 5})
    assert text.startswith("---\nlicense: mit\n---\n# Mine\n\nWords.\n\n<!-- training -->\n")
    assert text.endswith("| seed | 5 |\n<!-- /training -->\n")


@pytest.mark.parametrize("metadata", ["- a\n- list", "a: [1", "model-index: 3"])
def test_metadata_that_cannot_be_read_is_one_line(
    metadata: str, folder: Path, scenes: CaptionDataset
):
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# Mine\n")
    with pytest.raises(Refusal, match=r"README\.md.* cannot be read: .*; mend or delete") as caught:
        write(folder, scenes, FIGURES)
    assert len(str(caught.value).splitlines()) == 1
    assert (folder / "README.md").read_text().endswith("# Mine\n")
