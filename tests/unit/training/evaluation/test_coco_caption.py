"""Our scores of the results that tylin/coco-caption comes with are those it publishes.

Its files are found in the folder `CLIPCAP_COCO_CAPTION`, or `data/coco-caption`, under the names
`captions_val2014.json` and `captions_val2014_fakecap_results.json`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from training.evaluation.scores.scoring import cider, score

ANNOTATIONS, RESULTS = "captions_val2014.json", "captions_val2014_fakecap_results.json"
#: To three places, as published.
PUBLISHED = {"BLEU_1": 0.579, "BLEU_2": 0.404, "BLEU_3": 0.279, "BLEU_4": 0.191, "METEOR": 0.195,
             "ROUGE_L": 0.396, "CIDEr": 0.600, "SPICE": 0.133}  # fmt: skip


def files() -> tuple[Path, Path]:
    """The two files, or the test is skipped."""
    folder = Path(os.environ.get("CLIPCAP_COCO_CAPTION", ROOT / "data" / "coco-caption"))
    found = folder / ANNOTATIONS, folder / RESULTS
    missing = [file.name for file in found if not file.is_file()]
    if missing:
        pytest.skip(
            f"{folder} lacks {' and '.join(missing)} of tylin/coco-caption; say where they are: "
            "CLIPCAP_COCO_CAPTION=DIR"
        )
    return found


def read(annotations: Path, results: Path) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Generated captions, and the references of the same pictures."""
    said: list[dict[str, Any]] = json.loads(results.read_text())
    generated = {each["image_id"]: each["caption"] for each in said}
    assert len(generated) == len(said), "a picture has two results"
    references: dict[int, list[str]] = {image_id: [] for image_id in generated}
    for each in json.loads(annotations.read_text())["annotations"]:
        if each["image_id"] in references:
            references[each["image_id"]].append(each["caption"])
    return generated, references


def test_scores_are_those_published():
    generated, references = read(*files())
    assert len(generated) == 1000
    figures = score(generated, references).figures
    found = {name: round(figures[name], 3) for name in PUBLISHED if name in figures}
    assert found.keys() >= PUBLISHED.keys() - {"SPICE"}
    assert found == pytest.approx({name: PUBLISHED[name] for name in found}, abs=0.0011)


def write(folder: Path) -> None:
    """Two files in the layout of the real ones, with more annotations than results."""
    people = {5: ["A dog runs.", "A brown dog"], 9: ["Two red boats", "Boats at sea"], 11: ["A"]}
    annotations = [
        {"id": 10 * image_id + number, "image_id": image_id, "caption": caption}
        for image_id, captions in people.items()
        for number, caption in enumerate(captions)
    ]
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in people]
    coco = {"info": {}, "images": images, "licenses": [], "type": "captions"}
    (folder / ANNOTATIONS).write_text(json.dumps({**coco, "annotations": annotations}))
    results = [{"image_id": 9, "caption": "two boats"}, {"image_id": 5, "caption": "a dog runs"}]
    (folder / RESULTS).write_text(json.dumps(results))


def test_the_layout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    monkeypatch.setenv("CLIPCAP_COCO_CAPTION", str(tmp_path))
    generated, references = read(*files())
    assert generated == {9: "two boats", 5: "a dog runs"}
    assert references == {9: ["Two red boats", "Boats at sea"], 5: ["A dog runs.", "A brown dog"]}
    assert cider(generated, references) > cider({9: "a", 5: "b"}, references) == 0


def test_without_the_files_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    (tmp_path / RESULTS).unlink()
    monkeypatch.setenv("CLIPCAP_COCO_CAPTION", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=f"lacks {RESULTS} of tylin"):
        files()
