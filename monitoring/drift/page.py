"""The page of a drift report: one HTML file that needs nothing else, beside Evidently's pages."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

#: First bytes of a picture file -> its type, for the page.
TYPES = {
    b"\xff\xd8": "jpeg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"RIFF": "webp",
}
#: Pictures above this size are not put into the page, in bytes.
MOST_BYTES = 2_000_000
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.moved { font-weight: bold; }
.moved td:first-child::before { content: "\\25B2\\a0"; color: #b00; }
img { max-width: 9rem; max-height: 7rem; display: block; }
"""


def write_page(file: Path, found: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    """Write the page.

    Args:
        file: To write; Evidently's pages lie beside it.
        found: What `drift.json` says.
        pictures: Id of a capture -> the bytes of its picture, where those were stored.
    """
    verdict = "Something moved" if found["moved"] else "Nothing moved"
    notes = [
        f"{found['captures']:,} captures, {found['first']} to {found['last']}.",
    ]
    if (share := found["share_with_p_value_up_to_0.01"]) is not None:
        notes.append(
            f"{share:.1%} of them are as unusual as 1% of the validation pictures or more so."
        )
    if found["files_of_other_captioners"]:
        notes.append(f"{found['files_of_other_captioners']} files of other captioners left out.")
    if found["unreadable_files"]:
        notes.append(f"Files that cannot be read: {', '.join(found['unreadable_files'])}.")
    if "last week" not in found["against"]:
        notes.append("There are too few older captures to compare with those of last week.")
    parts = [f"<h1>{verdict}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    for name, own in found["against"].items():
        parts.append(f"<h2>Against {escape(name)} ({own['compared_with']:,} captions)</h2>")
        parts.append(
            _table(
                ("", "before", "now", "distance", "chance"),
                (
                    (
                        "moved" if each["moved"] else "",
                        escape(each["column"]),
                        *(f"{each[key]:.3g}" for key in ("before", "now", "distance", "chance")),
                    )
                    for each in own["columns"]
                ),
            )
        )
        if own["words"]:
            parts.append("<p>Words that came or went, as shares of captions:</p>")
            parts.append(
                _table(
                    ("word", "before", "now"),
                    (
                        ("", escape(each["word"]), f"{each['before']:.1%}", f"{each['now']:.1%}")
                        for each in own["words"][:40]
                    ),
                )
            )
        page = f"{name.replace(' ', '-')}.html"
        parts.append(f'<p><a href="{page}">Distributions of all columns</a> (Evidently)</p>')
    parts.append("<h2>The most unusual captures</h2>")
    parts.append(_unusual(found["unusual"], pictures))
    parts.append(
        "<p>A number has moved if its Wasserstein distance, in standard deviations of what it is "
        "compared with, is at least 0.1, and if the Kolmogorov-Smirnov test says that chance "
        "explains it less than once in a hundred comparisons.</p>"
    )
    title = f"<title>{verdict}</title>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{_STYLE}</style>'
    file.write_text(head + "\n".join(parts), encoding="utf-8")


def _unusual(rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> str:
    if not rows:
        return "<p>This captioner does not say how unusual a picture is.</p>"
    shown = [[escape(str(row["id"])), escape(row["caption"])] for row in rows]
    listed = []
    for row, (name, caption) in zip(rows, shown, strict=True):
        picture = _picture(pictures.get(str(row["id"])), caption)
        own = (f"{row['ood_p_value']:.4f}", f"{row['ood_score']:.2f}", f"{row['confidence']:.2f}")
        listed.append(("", f"{picture}{caption}<br><small>{name}</small>", *own))
    return _table(("", "p-value", "score", "confidence"), listed)


def _picture(data: bytes | None, caption: str) -> str:
    """A picture within the page; nothing where it is not stored or no browser shows it."""
    if data is None or len(data) > MOST_BYTES:
        return ""
    kind = next((kind for begin, kind in TYPES.items() if data.startswith(begin)), None)
    if kind is None:
        return ""
    text = base64.b64encode(data).decode()
    return f'<img alt="{caption}" src="data:image/{kind};base64,{text}">'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first element of each row is its class, the other cells are HTML."""
    lines = ["<table><tr>", *(f"<th>{each}</th>" for each in head), "</tr>"]
    for kind, first, *others in rows:
        cells = "".join(f'<td class="number">{each}</td>' for each in others)
        lines.append(f'<tr class="{kind}"><td>{first}</td>{cells}</tr>')
    return "".join([*lines, "</table>"])
