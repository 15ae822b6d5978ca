"""Report of an evaluation: a page of pictures, and a table for the terminal.

The page is one HTML file with the pictures inside it. It can be opened anywhere and loads nothing
from elsewhere.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image
from rich.table import Table

from training.data.tar_picture import PictureFile
from training.evaluation.report.kept_chart import kept_chart
from training.evaluation.scores.checks import Checks, FalseStatement
from training.evaluation.scores.reliability import Kept

if TYPE_CHECKING:
    from training.evaluation.scores.scoring import Scores

Figures = Mapping[str, Mapping[str, float]]
"""Split -> name of a figure (see `titles`) -> value."""

_TEMPLATE = "page.html"
_THUMBNAIL = (420, 320)  # width and height in pixels, at most

#: Scores on page, card and in the table, and the title of each.
TITLES = {
    "CIDEr": "CIDEr",
    "human_CIDEr": "human CIDEr",
    "CIDEr_fewer_references": "CIDEr, one reference fewer",
    "BLEU_1": "BLEU-1",
    "BLEU_2": "BLEU-2",
    "BLEU_3": "BLEU-3",
    "BLEU_4": "BLEU-4",
    "METEOR": "METEOR",
    "ROUGE_L": "ROUGE-L",
    "SPICE": "SPICE",
    "CLIPScore": "CLIPScore",
    "RefCLIPScore": "RefCLIPScore",
    "CHAIR_i": "CHAIR, of mentions",
    "CHAIR_s": "CHAIR, of captions",
    "quality_AUROC": "quality, AUROC",
    "quality_ECE": "quality, calibration error",
    "confidence_AUROC": "confidence, AUROC",
}
#: Title of `Scores.setting`, which stands beside every CIDEr.
SETTING = "CIDEr's tokenizer, references"


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture with its caption, as the page can show it.

    Attributes:
        file: The picture.
        caption: The generated caption.
        references: The captions of the data set.
        cider: CIDEr of the caption against them.
        false: The statements of the caption that are false, if the data set has checks.
        confidence: exp(mean token log-probability), or None.
        quality: How likely it is right, or None.
    """

    file: PictureFile
    caption: str
    references: Sequence[str]
    cider: float
    false: Sequence[FalseStatement] = ()
    confidence: float | None = None
    quality: float | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """One split: its figures (see `titles`) and the captions of all its pictures.

    `kept` is the share that is right of the captions with the highest quality, for several shares;
    empty from a captioner without a quality head. `scores` are what `scoring.score` gave.
    """

    figures: Mapping[str, float]
    shown: Sequence[Shown]
    kept: Sequence[Kept] = ()
    scores: Scores | None = None

    @property
    def setting(self) -> str:
        """What CIDEr depends on beside the captions; empty without `scores`."""
        return self.scores.setting if self.scores else ""


def settings_of(sections: Mapping[str, Section]) -> dict[str, str]:
    """Split -> `Section.setting`, of the splits that have one."""
    return {split: own.setting for split, own in sections.items() if own.setting}


def titles(checks: Checks | None) -> dict[str, str]:
    """Name -> title of every figure that is shown, those of the checks included."""
    return {**TITLES, **(checks.titles if checks else {})}


def number(name: str, value: float, checks: Checks | None) -> str:
    """A figure as text: those of the checks in per cent, scores with three decimals."""
    if checks and name in checks.titles:
        return f"{100 * value:.1f}%"
    return f"{value:.3f}"


def write_page(
    file: Path,
    title: str,
    sections: Mapping[str, Section],
    notes: Sequence[str] = (),
    pictures: int = 48,
    checks: Checks | None = None,
) -> None:
    """Write the page.

    Args:
        file: The HTML file.
        title: Its heading.
        sections: Split name -> what to show of it.
        notes: Lines at the end, such as which score was left out and why.
        pictures: Pictures of each split, at most: a third with the worst CIDEr, a third with the
            best, and a third drawn from the others.
        checks: The checks of the data set, or None.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    page = environment.get_template(_TEMPLATE).render(
        title=title,
        checked=checks is not None,
        sections=[_section(name, own, pictures, checks) for name, own in sections.items()],
        notes=list(dict.fromkeys(notes)),
        kept_chart=kept_chart({name: own.kept for name, own in sections.items() if own.kept}),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page + "\n", encoding="utf-8")


def figures_table(
    figures: Figures,
    checks: Checks | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """The figures of every split side by side, for the terminal."""
    table = Table(title="Scores by split", title_justify="left")
    table.add_column("")
    for split in figures:
        table.add_column(split, justify="right")
    for name, title in titles(checks).items():
        if any(name in own for own in figures.values()):
            table.add_row(
                title,
                *(
                    number(name, own[name], checks) if name in own else ""
                    for own in figures.values()
                ),
            )
    if settings:
        table.add_row(SETTING, *(settings.get(split, "") for split in figures))
    return table


def _section(name: str, section: Section, pictures: int, checks: Checks | None) -> dict[str, Any]:
    """One split for the template: figures, then worst, best and sampled pictures."""
    ranked = sorted(section.shown, key=lambda shown: shown.cider)
    third = min(pictures, len(ranked)) // 3
    others = ranked[third : len(ranked) - third]
    # The split's name is the seed: the same pictures every time, so that pages can be compared.
    sampled = random.Random(name).sample(others, min(pictures - 2 * third, len(others)))
    groups = {
        "Worst by CIDEr": ranked[:third],
        "Best by CIDEr": ranked[len(ranked) - third :][::-1],
        "Drawn from the others": sampled,
    }
    return {
        "id": "split-" + "".join(letter if letter.isalnum() else "-" for letter in name),
        "name": name,
        "count": len(ranked),
        "setting": section.setting,
        "figures": [
            (title, number(key, section.figures[key], checks), _share(key, section, checks))
            for key, title in titles(checks).items()
            if key in section.figures
        ],
        "kept": [
            (f"{each.share:.0%}", f"{each.threshold:.2f}", f"{each.right:.1%}")
            for each in section.kept
        ],
        "groups": [(heading, list(map(_entry, shown))) for heading, shown in groups.items()],
    }


def _share(name: str, section: Section, checks: Checks | None) -> str | None:
    """Length in per cent of the bar under a figure of the checks; None for a score."""
    if checks is None or name not in checks.titles:
        return None
    return f"{100 * min(section.figures[name], 1.0):.0f}"


def _entry(shown: Shown) -> dict[str, Any]:
    """One picture for the template."""
    numbers = [f"CIDEr {shown.cider:.2f}"]
    if shown.confidence is not None:
        numbers.append(f"confidence {shown.confidence:.2f}")
    if shown.quality is not None:
        numbers.append(f"quality {shown.quality:.2f}")
    if shown.false:
        numbers.append(f"{len(shown.false)} false")
    return {
        "caption": shown.caption,
        "thumbnail": _thumbnail(shown.file),
        "parts": list(_parts(shown.caption, shown.false)),
        "numbers": " · ".join(numbers),
        "references": shown.references,
    }


def _parts(caption: str, false: Sequence[FalseStatement]) -> Iterator[tuple[str, str]]:
    """The caption in parts, each with the kinds of false statement that it belongs to."""
    kinds: dict[int, list[str]] = {}  # character -> kinds of the false statements over it
    for statement in false:
        for character in range(*statement.span):
            kinds.setdefault(character, []).append(statement.kind)
    start = 0
    while start < len(caption):
        end = start + 1
        while end < len(caption) and kinds.get(end) == kinds.get(start):
            end += 1
        yield caption[start:end], ", ".join(kinds.get(start, ()))
        start = end


def _thumbnail(file: PictureFile) -> str:
    """A small JPEG of a picture as a data URI."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        small = image.convert("RGB")
    small.thumbnail(_THUMBNAIL)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
