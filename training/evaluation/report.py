"""What an evaluation shows people: a page of pictures, a table for the terminal, and a chart.

The page is one HTML file with the pictures inside it; opened anywhere, it fetches nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import random
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table

from training.data.tar_picture import PictureFile
from training.scenes.language.statements import KINDS, Claim

_TEMPLATE = Path(__file__).with_name("report_page.html")
_THUMBNAIL = (420, 320)  # pixels, at most

#: Figures on the page and in the table, and what each is called there.
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
    "precision": "scene precision",
    "recall": "scene recall",
    "hallucination_rate": "hallucination rate",
    "faultless": "faultless captions",
}
#: Figures that are shares, and stand as per cent.
_SHARES = frozenset(("precision", "recall", "hallucination_rate", "faultless"))


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture with its caption, as the page can show it.

    Attributes:
        file: The picture.
        caption: What was generated for it.
        references: What people wrote.
        cider: CIDEr of the caption against them.
        false: The claims of the caption that are not true, where the truth is known; else empty.
        confidence: exp(mean token log-probability), or None.
    """

    file: PictureFile
    caption: str
    references: Sequence[str]
    cider: float
    false: Sequence[Claim] = ()
    confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """One split: its figures (see `TITLES`) and the captions of all its pictures."""

    figures: Mapping[str, float]
    shown: Sequence[Shown]


def write_page(
    file: Path,
    title: str,
    sections: Mapping[str, Section],
    notes: Sequence[str] = (),
    pictures: int = 48,
) -> None:
    """Writes the page.

    Args:
        file: The HTML file.
        title: Its heading.
        sections: Split name -> what to show of it.
        notes: Lines at the end, such as which score was left out and why.
        pictures: At most so many of each split: a third the worst by CIDEr, a third the best, and
            a third drawn from the others.
    """
    lead = "Pictures nobody trained on, the caption the model gave each, and its references."
    if any("precision" in section.figures for section in sections.values()):
        lead += " What is marked <mark>like this</mark> is not in the picture."
    page = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        lead=lead,
        links=" ".join(f'<a href="#{_id(name)}">{html.escape(name)}</a>' for name in sections),
        sections="\n".join(_section(name, section, pictures) for name, section in sections.items()),
        notes=_notes(notes),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def figures_table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """The figures of every split side by side, for the terminal."""
    table = Table(title="Captions of pictures nobody trained on", title_justify="left")
    table.add_column("")
    for split in figures:
        table.add_column(split, justify="right")
    for name, title in TITLES.items():
        if any(name in own for own in figures.values()):
            table.add_row(
                title,
                *(number(name, own[name]) if name in own else "" for own in figures.values()),
            )
    return table


def draw_chart(file: Path, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Draws the main figures of every split: CIDEr beside people's, and claims that hold.

    Args:
        file: The picture; its suffix says which format.
        figures: Split name -> figures of `scoring.score` and, of scenes, of `SceneAccuracy`.
    """
    scenes = {split: own for split, own in figures.items() if "precision" in own}
    chart = Figure(figsize=(11, 4.2) if scenes else (4.4, 4.2), layout="constrained", dpi=130)
    axes = chart.subplots(1, 2 if scenes else 1, width_ratios=(1, 2.2) if scenes else None)
    left = axes[0] if scenes else axes
    names = [name for name in ("CIDEr", "human_CIDEr") if any(name in f for f in figures.values())]
    for offset, name in enumerate(names):
        at = [i + 0.38 * (offset - (len(names) - 1) / 2) for i in range(len(figures))]
        bars = left.bar(
            at,
            [own.get(name, 0.0) for own in figures.values()],
            0.34,
            color=("#1f6f78", "#c9b890")[offset],
            label={"CIDEr": "model", "human_CIDEr": "a person"}[name],
        )
        left.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    left.set_xticks(range(len(figures)), list(figures))
    left.set_title("CIDEr", loc="left")
    left.margins(y=0.1)
    if scenes:
        right = axes[1]
        width = 0.8 / len(scenes)
        for offset, (split, own) in enumerate(scenes.items()):
            at = [i + width * (offset - (len(scenes) - 1) / 2) for i in range(len(KINDS))]
            shares = [100 * own.get(f"{kind}_precision", 0.0) for kind in KINDS]
            bars = right.bar(
                at, shares, width * 0.92, color=("#1f6f78", "#d98e4a", "#8a6fa8")[offset % 3],
                label=split,
            )  # fmt: skip
            right.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
        right.set_xticks(range(len(KINDS)), KINDS)
        right.set_ylim(0, 112)
        right.set_yticks(range(0, 101, 20))
        right.set_title("True of what captions state, per cent", loc="left")
    for axis in chart.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(length=0)
        axis.legend(
            frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.995)
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(file)


def _section(name: str, section: Section, pictures: int) -> str:
    """One split: figures, then worst, best and sampled pictures."""
    entries = "".join(
        f'<div style="--share:{100 * min(section.figures[key], 1.0):.0f}%">'
        f"<dt>{title}</dt><dd>{number(key, section.figures[key])}</dd></div>"
        if key in _SHARES
        else f"<div><dt>{title}</dt><dd>{number(key, section.figures[key])}</dd></div>"
        for key, title in TITLES.items()
        if key in section.figures
    )
    ranked = sorted(section.shown, key=lambda shown: shown.cider)
    third = min(pictures, len(ranked)) // 3
    worst, best = ranked[:third], ranked[len(ranked) - third :][::-1]
    middle = ranked[third : len(ranked) - third]
    # Which ones is decided by the split's name: the same pictures every time, for comparison.
    sampled = random.Random(name).sample(middle, min(pictures - 2 * third, len(middle)))
    parts = [
        f'<h2 id="{_id(name)}">{html.escape(name)}</h2>',
        f'<p class="soft">{len(ranked)} pictures.</p>',
        f"<dl>{entries}</dl>",
    ]
    for heading, chosen in (
        ("Worst by CIDEr", worst),
        ("Best by CIDEr", best),
        ("Drawn from the others", sampled),
    ):
        if chosen:
            parts.append(f"<h3>{heading}</h3>")
            parts.append(f'<div class="cards">{"".join(map(_card, chosen))}</div>')
    return "\n".join(parts)


def _card(shown: Shown) -> str:
    """One picture with its captions."""
    numbers = [f"CIDEr {shown.cider:.2f}"]
    if shown.confidence is not None:
        numbers.append(f"confidence {shown.confidence:.2f}")
    if shown.false:
        numbers.append(f"{len(shown.false)} false")
    references = "".join(f"<li>{html.escape(reference)}</li>" for reference in shown.references)
    return (
        f'<figure><img loading="lazy" alt="{html.escape(shown.caption)}" '
        f'src="{_thumbnail(shown.file)}">'
        f'<figcaption><p class="said">{_marked(shown.caption, shown.false)}</p>'
        f'<p class="score">{" · ".join(numbers)}</p><ul>{references}</ul></figcaption></figure>'
    )


def _marked(caption: str, false: Sequence[Claim]) -> str:
    """The caption with the words of its false claims marked, each with the kind of claim."""
    said: dict[int, list[str]] = {}  # character -> the kinds of false claim it is part of
    for claim in false:
        for place in range(*claim.span):
            said.setdefault(place, []).append(claim.kind)
    parts, place = [], 0
    while place < len(caption):
        end = place + 1
        while end < len(caption) and said.get(end) == said.get(place):
            end += 1
        text = html.escape(caption[place:end])
        if place in said:
            text = f'<mark title="false: {", ".join(said[place])}">{text}</mark>'
        parts.append(text)
        place = end
    return "".join(parts)


def _thumbnail(file: PictureFile) -> str:
    """A small JPEG of a picture as a data URI."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        small = image.convert("RGB")
    small.thumbnail(_THUMBNAIL)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<h2>Notes</h2><ul class="notes">{items}</ul>'


def number(name: str, value: float) -> str:
    """A figure as people read it."""
    if name in _SHARES:
        return f"{100 * value:.1f}%"
    return f"{value:.3f}"


def _id(name: str) -> str:
    return "split-" + "".join(letter if letter.isalnum() else "-" for letter in name)
