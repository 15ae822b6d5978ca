"""Everything that captions are measured by, of a captioner or of a file of anybody's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.config import Evaluate
from training.data.dataset import CaptionDataset
from training.evaluation.report.page import Shown
from training.evaluation.scores.chair import Chair
from training.evaluation.scores.checks import FalseStatement, SplitChecks
from training.evaluation.scores.clip_score import ClipScorer
from training.evaluation.scores.scoring import Scores, score


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measures of the captions of some pictures.

    Attributes:
        figures: Those of `scoring.score`, of the checks, of CLIPScore and of CHAIR.
        scores: What `scoring.score` gave.
        shown: Each picture with its caption, for the page.
        false: Image id -> the false statements of its caption; empty without checks.
        rows: Image id -> what captions.jsonl says of the caption beside its text.
        notes: Lines for the reader.
    """

    figures: dict[str, float]
    scores: Scores
    shown: list[Shown]
    false: dict[int, Sequence[FalseStatement]]
    rows: dict[int, dict[str, Any]]
    notes: list[str]


class Measures:
    """Measures captions of one data set.

    Args:
        dataset: The data set.
        settings: `clip` and `instances` add CLIPScore and CHAIR.
        device: Where the CLIP of CLIPScore computes.

    Raises:
        Refusal: A file or a model that the settings name cannot be used.
    """

    def __init__(self, dataset: CaptionDataset, settings: Evaluate, device: torch.device) -> None:
        self.dataset = dataset
        self.clip = ClipScorer(dataset, settings, device) if settings.clip is not None else None
        self.chair = None
        if settings.instances is not None:
            self.chair = Chair(dataset, settings.instances, settings.synonyms)

    def names(self) -> dict[str, str]:
        """What metrics.json says of the CLIP and of the list of objects, if they are used."""
        found = {}
        if self.clip is not None:
            found["clip"] = str(self.clip.settings.clip)
        if self.chair is not None:
            found["objects"] = self.chair.objects.file.name
        return found

    def check(self, splits: Sequence[str]) -> None:
        """Refuse pictures that cannot be measured, before they are captioned.

        Raises:
            Refusal: The instances file lacks some of them.
        """
        if self.chair is not None:
            self.chair.check({i: None for split in splits for i in self.dataset.ids(split)})

    def measure(
        self, split: str, generated: Mapping[int, str], checked: SplitChecks | None
    ) -> Measured:
        """Measure captions.

        Args:
            split: Name of the split, for the notes.
            generated: Image id -> caption.
            checked: The checks of the data set, to which the captions are added; None without.

        Raises:
            Refusal: A picture cannot be read, or lacks in the instances file, or Java fails.
        """
        references = {i: self.dataset.captions[i] for i in generated}
        scores = score(generated, references)
        figures, notes = dict(scores.figures), list(scores.notes)
        rows: dict[int, dict[str, Any]] = {
            i: {"CIDEr": round(value, 4)} for i, value in scores.cider.items()
        }
        if self.clip is not None:
            figures |= self.clip.figures(generated)
            notes.append(f"{split}: {self.clip.note(generated)}")
            for i in generated:
                names = ("CLIPScore", "RefCLIPScore")
                values = (round(value, 4) for value in self.clip.scores[i])
                rows[i] |= dict(zip(names, values, strict=True))
        if self.chair is not None:
            found, mentions, note = self.chair.measure(generated)
            figures |= found
            notes.append(f"{split}: {note}")
            for i, names_of in mentions.items():
                rows[i]["not_in_picture"] = names_of
        false: dict[int, Sequence[FalseStatement]] = {}
        if checked is not None:
            false = {i: checked.add(i, text) for i, text in generated.items()}
            figures |= checked.figures()
        shown = [
            Shown(
                file=self.dataset.files[i],
                caption=text,
                references=references[i],
                cider=scores.cider[i],
                false=false.get(i, ()),
            )
            for i, text in generated.items()
        ]
        return Measured(figures, scores, shown, false, rows, notes)


def caption_line(split: str, image_id: int, caption: str, **values: Any) -> str:
    """A line of captions.jsonl."""
    return json.dumps({"split": split, "image_id": image_id, "caption": caption, **values})
