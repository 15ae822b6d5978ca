"""What has moved in what a server captions: `python -m monitoring.drift CAPTURES`.

Compares the captures of the last day with what the captioner said about usual pictures when it was
trained, and with the seven days before. It writes a folder with a page for people (`index.html`,
which opens without a network), Evidently's page of each comparison, and `drift.json`.

Exit status, for cron: 0 nothing moved, 1 something moved, 2 it could not be said.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.refusal import Refusal

if TYPE_CHECKING:
    from monitoring.drift.captures import Captures, Window

ROOT = Path(__file__).resolve().parent.parent.parent
#: Where a captioner's reference is looked for: what `make train` writes, and what ships.
CHECKPOINTS = (ROOT / "models" / "clipcap", ROOT / "training" / "pretrained" / "scenes-captioner")
#: Fewest captures that are compared.
FEWEST = 30
NOTHING_MOVED, MOVED, REFUSED = 0, 1, 2


def main(words: Sequence[str]) -> int:
    """Compare and report.

    Returns:
        The exit status.

    Raises:
        Refusal: There is nothing to compare.
    """
    options = _options(words)
    try:
        from monitoring.drift.captures import Captures
    except ImportError as error:
        raise Refusal(
            f"{error.name} is not installed; this command needs pip install 'clipcap[monitoring]'"
        ) from None
    captures = Captures.open(options.captures)
    newest = captures.newest(1)
    if options.last is None:
        begin = newest - datetime.timedelta(hours=options.hours)
    else:
        begin = captures.newest(options.last) - datetime.timedelta(microseconds=1)
    now = captures.window(begin, newest)
    if now.count < FEWEST:
        raise Refusal(
            f"{options.captures} has {now.count} captures of the time that is looked at; at least "
            f"{FEWEST} are compared; give more --hours, or capture more (handler.capture.sample)"
        )
    before = captures.window(begin - datetime.timedelta(days=options.days), begin)
    if options.json:
        found = _compare(captures, now, before, options, None)
        print(json.dumps(found, indent=2))
        return MOVED if found["moved"] else NOTHING_MOVED
    from model.whole_folder import whole_folder
    from monitoring.drift.page import write_page

    with whole_folder(options.out, "drift.json") as folder:
        found = _compare(captures, now, before, options, folder)
        (folder / "drift.json").write_text(json.dumps(found, indent=2) + "\n")
        listed = [each["id"] for each in found["unusual"]]
        pictures = captures.pictures(listed, now.first or begin)
        write_page(folder / "index.html", found, pictures)
    _report(found, options.out)
    return MOVED if found["moved"] else NOTHING_MOVED


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("captures", type=Path, help="the folder of handler.capture")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="the captioner's checkpoint folder, which has its reference.jsonl; by default the one "
        "trained here or the one that ships, whichever was captured",
    )
    parser.add_argument(
        "--hours", type=float, default=24, help="of captures that are looked at (24)"
    )
    parser.add_argument("--last", type=int, help="look at the last so many captures instead")
    parser.add_argument(
        "--days", type=float, default=7, help="before those, to compare them with (7)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports/drift"), help="folder of the report"
    )
    parser.add_argument("--json", action="store_true", help="print drift.json, and write nothing")
    options = parser.parse_args(words)
    for name, value in {"hours": options.hours, "last": options.last, "days": options.days}.items():
        if value is not None and not 0 < value < 10**6:
            raise Refusal(f"--{name} is {value:g}; it must be above 0 and below a million")
    return options


def _compare(
    captures: Captures,
    now: Window,
    before: Window,
    options: argparse.Namespace,
    folder: Path | None,
) -> dict[str, Any]:
    """All that `drift.json` says."""
    from monitoring.drift.comparison import (
        Components,
        compare,
        feature_shift,
        numbers,
        sure_first,
    )
    from monitoring.drift.words import word_changes, words_of

    reference = _reference(captures.weights_sha256, options.checkpoint)
    components = Components(reference["feature"])
    columns = numbers(now.sample, components)
    words: dict[str, int] = {}
    for caption in reference["caption"]:
        for word in words_of(caption):
            words[word] = words.get(word, 0) + 1
    usual = len(reference["caption"])
    against = {"training": (reference, words, usual)}
    if before.count >= FEWEST:
        against["last week"] = (before.sample, before.words, before.count)
    found: dict[str, Any] = {}
    for name, (sample, own_words, count) in against.items():
        page = folder / f"{name.replace(' ', '-')}.html" if folder else None
        shifted = feature_shift(sample["feature"], now.sample["feature"])
        changes = sure_first(
            compare(
                {**numbers(sample, components), "feature shift": shifted[0]},
                {**columns, "feature shift": shifted[1]},
                page,
            )
        )
        worded = word_changes(own_words, count, now.words, now.count)
        found[name] = {
            "compared_with": count,
            "moved": [each.column for each in changes if each.moved],
            "columns": [dataclasses.asdict(each) for each in changes],
            "words": [dataclasses.asdict(each) for each in worded],
        }
    p_values = [each for each in now.sample["ood_p_value"] if each is not None]
    return {
        "moved": any(each["moved"] or each["words"] for each in found.values()),
        "captures": now.count,
        "sampled": len(now.sample["caption"]),
        "first": now.first.isoformat() if now.first else None,
        "last": now.last.isoformat() if now.last else None,
        "weights_sha256": captures.weights_sha256,
        "files_of_other_captioners": len(captures.others),
        "unreadable_files": sorted(captures.unreadable),
        "share_with_p_value_up_to_0.01": (
            round(sum(each <= 0.01 for each in p_values) / len(p_values), 4) if p_values else None
        ),
        "against": found,
        "unusual": [{**each, "time": each["time"].isoformat()} for each in now.unusual],
    }


def _reference(weights_sha256: str, checkpoint: Path | None) -> Mapping[str, Any]:
    """What this captioner said about usual pictures, as columns.

    Raises:
        Refusal: There is no reference, or only that of another captioner.
    """
    import numpy as np

    from model.reference_file import REFERENCE, Reference

    folders = CHECKPOINTS if checkpoint is None else (checkpoint,)
    files = [folder / REFERENCE for folder in folders]
    found = [Reference.load(file) for file in files if checkpoint or file.is_file()]
    own = next((each for each in found if each.weights_sha256 == weights_sha256), None)
    if own is None:
        looked = " and ".join(str(folder) for folder in folders)
        raise Refusal(
            f"the captures are of the captioner with weights {weights_sha256[:12] or 'unknown'}…, "
            f"of which {looked} has no {REFERENCE}; name its checkpoint folder with --checkpoint, "
            "and write the file with python -m training.ood --checkpoint DIR"
        )
    names = ("caption", "confidence", "quality", "ood_score", "ood_p_value")
    columns: dict[str, Any] = {name: [getattr(row, name) for row in own.rows] for name in names}
    columns["feature"] = np.stack([row.feature.numpy() for row in own.rows])
    return columns


def _report(found: Mapping[str, Any], out: Path) -> None:
    """Print what moved, for a terminal or a mail of cron."""
    print(f"{found['captures']:,} captures, {found['first']} to {found['last']}")
    if found["files_of_other_captioners"]:
        print(f"note: {found['files_of_other_captioners']} files of other captioners are left out")
    if found["unreadable_files"]:
        print(f"note: files that cannot be read: {', '.join(found['unreadable_files'][:5])}")
    if "last week" not in found["against"]:
        print(f"note: fewer than {FEWEST} captures are older, so there is no last week")
    for name, own in found["against"].items():
        by_name = {each["column"]: each for each in own["columns"]}
        moved = [
            f"{column} {by_name[column]['before']:.3g} -> {by_name[column]['now']:.3g}"
            for column in own["moved"]
        ]
        words = [
            f"{each['word']} {each['before']:.0%} -> {each['now']:.0%}" for each in own["words"]
        ]
        print(f"against {name}: {', '.join(moved) or 'no number moved'}")
        print(f"  words: {', '.join(words[:10]) or 'none came or went'}")
    print(f"report: {out / 'index.html'}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Refusal, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
