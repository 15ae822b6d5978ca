"""`python -m monitoring.drift` on captures that the handler's own writer has made."""

from __future__ import annotations

import datetime
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handler.capture.folder import IMAGES, CaptureFolder
from handler.capture.rows import CapturedRow, image_schema, schema, table
from model.options import GenerationOptions
from model.reference_file import REFERENCE, Reference
from model.refusal import Refusal
from monitoring.drift.words import word_changes, words_of
from tests import ROOT
from tests.pictures import sound

pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
if importlib.util.find_spec("evidently") is None:
    pytest.skip("the extra monitoring is not installed", allow_module_level=True)

from monitoring.drift import captures as captures_module  # noqa: E402 - needs pyarrow
from monitoring.drift.__main__ import main  # noqa: E402
from monitoring.drift.captures import Captures  # noqa: E402
from monitoring.drift.comparison import feature_shift  # noqa: E402

SHIPPED = ROOT / "training" / "pretrained" / "scenes-captioner"
NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
REFERENCE_ROWS = Reference.load(SHIPPED / REFERENCE)


def usual(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows like those of usual pictures: drawn from the reference of the shipped captioner."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        own = REFERENCE_ROWS.rows[int(chance.integers(len(REFERENCE_ROWS.rows)))]
        rows.append(
            {
                "id": f"{seed}-{number}/0",
                "request": "",
                "time": NOW - datetime.timedelta(seconds=float(chance.uniform(0, 3600))),
                "caption": own.caption,
                "other_captions": [],
                "confidence": own.confidence,
                "log_prob": -1.0,
                "tokens": 9,
                "finish_reason": "end",
                "quality": own.quality,
                "ood_score": own.ood_score,
                "ood_p_value": own.ood_p_value,
                "options": GenerationOptions(),
                "feature": own.feature.numpy(),
            }
        )
    return rows


def unusual(count: int, seed: int) -> list[dict[str, Any]]:
    """The same, but of pictures that look otherwise, and whose captions speak of tigers."""
    rows = usual(count, seed)
    for row in rows:
        row["feature"] = row["feature"] + 1.5
        row["caption"] = f"a tiger <b>and</b> {row['caption']}"
        row["confidence"] *= 0.7
        row["ood_score"] *= 2
        row["ood_p_value"] = 0.001
    return rows


def write(folder: Path, rows: list[dict[str, Any]], weights: str = "", **picture: bytes) -> None:
    """Write rows as the handler does, in one file, whose name has their time."""
    metadata = {"weights_sha256": weights or REFERENCE_ROWS.weights_sha256}
    own = table(pyarrow, [CapturedRow(row) for row in rows], schema(pyarrow, metadata))
    whole = CaptureFolder(folder, 10**9, 10**4, 10**4)
    file = whole.write(pq, own)
    newest = max(row["time"] for row in rows)
    file.rename(re.sub(r"capture-[^-]+", f"capture-{newest:%Y%m%dT%H%M%S.%fZ}", str(file)))
    if picture:
        values = {"id": list(picture), "image": list(picture.values())}
        images = pyarrow.Table.from_pydict(values, schema=image_schema(pyarrow, metadata))
        whole.write(pq, images, IMAGES)


def earlier(rows: list[dict[str, Any]], days: float) -> list[dict[str, Any]]:
    return [{**row, "time": row["time"] - datetime.timedelta(days=days)} for row in rows]


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    out = folder.parent / "report"
    status = main([str(folder), "--checkpoint", str(SHIPPED), "--out", str(out), *words])
    return status, json.loads((out / "drift.json").read_text())


def test_usual_captures_have_not_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "captures"
    write(folder, earlier(usual(400, 1), 3))
    write(folder, usual(400, 2))
    status, found = run(folder)
    assert (status, found["moved"]) == (0, False)
    assert set(found["against"]) == {"training", "last week"}
    assert found["captures"] == 400
    assert found["share_with_p_value_up_to_0.01"] < 0.04
    assert "no number moved" in capsys.readouterr().out


def test_what_moved_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "captures"
    write(folder, earlier(usual(300, 1), 2))
    write(folder, usual(100, 2) + unusual(100, 3), **{"3-7/0": sound()["png"]})
    status, found = run(folder)
    assert (status, found["moved"]) == (1, True)
    for own in found["against"].values():
        assert {"confidence", "ood score", "caption words"} <= set(own["moved"])
        assert "feature shift" in own["moved"]
        by_word = {each["word"]: each for each in own["words"]}
        assert by_word["tiger"]["before"] == 0
        assert by_word["tiger"]["now"] == pytest.approx(0.5)
    assert found["share_with_p_value_up_to_0.01"] >= 0.5
    assert len(found["unusual"]) == 20
    assert all("tiger" in each["caption"] for each in found["unusual"])
    assert "tiger 0% -> 50%" in capsys.readouterr().out
    page = (tmp_path / "report" / "index.html").read_text()
    assert "a tiger &lt;b&gt;and&lt;/b&gt;" in page
    assert "Something moved" in page
    # No page needs anything from elsewhere.
    elsewhere = r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//"
    for name in ("index.html", "training.html", "last-week.html"):
        assert not re.search(elsewhere, (tmp_path / "report" / name).read_text())


def test_a_shift_is_found_where_features_vary_little_and_not_by_chance():
    chance = np.random.default_rng(1)
    scales = np.linspace(0.01, 10, 40)
    before, now, alike = (chance.normal(size=(count, 40)) * scales for count in (300, 201, 200))
    now[:, 0] += 0.02  # two standard deviations of the dimension that varies least
    own, shifted = feature_shift(before, now)
    assert abs(own.mean()) < 1e-6
    assert own.std() == pytest.approx(1, abs=0.01)
    assert shifted.mean() > 1
    assert abs(feature_shift(before, alike)[1].mean()) < 0.3
    assert np.isfinite(feature_shift(np.ones((30, 4)), np.ones((31, 4)))[1]).all()


def test_stored_pictures_are_on_the_page(tmp_path: Path):
    folder = tmp_path / "captures"
    rows = usual(60, 1)
    rows[7]["ood_p_value"] = 0.0001
    write(folder, rows, **{rows[7]["id"]: sound()["png"]})
    _, found = run(folder)
    assert found["unusual"][0]["id"] == rows[7]["id"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1


def test_the_last_captures_can_be_asked_for_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "captures"
    write(folder, usual(200, 1))
    write(folder, [{**row, "time": NOW + datetime.timedelta(hours=1)} for row in unusual(50, 2)])
    words = [str(folder), "--checkpoint", str(SHIPPED), "--last", "50", "--json"]
    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["captures"] == 50
    assert found["against"]["last week"]["compared_with"] == 200
    assert not (tmp_path / "reports").exists()


def test_captures_of_another_captioner_are_left_out_and_counted(tmp_path: Path):
    folder = tmp_path / "captures"
    write(folder, earlier(unusual(100, 1), 1), weights="older")
    write(folder, usual(100, 2))
    status, found = run(folder)
    assert status == 0
    assert found["files_of_other_captioners"] == 1
    assert "last week" not in found["against"]


def test_damaged_files_are_named(tmp_path: Path):
    folder = tmp_path / "captures"
    write(folder, usual(100, 2))
    (folder / "capture-20261130T110000.000000Z-1-1.parquet").write_bytes(b"half")
    (folder / "capture-of-something-else.parquet").write_bytes(b"")
    _, found = run(folder)
    assert found["unreadable_files"] == [
        "capture-20261130T110000.000000Z-1-1.parquet",
        "capture-of-something-else.parquet",
    ]


def test_a_sample_is_kept_of_many_captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(captures_module, "SAMPLE", 50)
    folder = tmp_path / "captures"
    for seed in range(3):
        write(folder, usual(100, seed))
    window = Captures.open(folder).window(NOW - datetime.timedelta(days=1), NOW)
    assert window.count == 300
    assert window.sample["feature"].shape == (50, 160)
    assert sum(window.words.values()) > 900


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "holds no captures; set handler.capture"),
        (lambda folder: write(folder, usual(3, 1)), "has 3 captures of the time"),
        (lambda folder: write(folder, usual(50, 1), weights="x" * 64), "weights xxxxxxxxxxxx…"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, prepare: Any, message: str):
    folder = tmp_path / "captures"
    prepare(folder)
    with pytest.raises(Refusal) as caught:
        main([str(folder), "--checkpoint", str(SHIPPED), "--out", str(tmp_path / "out")])
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_exits_with_2_and_one_line_when_it_refuses(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "monitoring.drift", str(tmp_path), "--hours", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: --hours is 0; it must be above 0 and below a million\n"


def test_words_are_compared_with_what_chance_does():
    words = {"a", "dog's", "dog", "at", "the", "lake-side"}
    assert words_of("A dog's dog, at the lake-side.") == words
    before = {"dog": 500, "cat": 200, "rare": 1}
    assert word_changes(before, 1000, {"dog": 260, "cat": 100, "rare": 3}, 500) == []
    came, went = word_changes(before, 1000, {"dog": 100, "tiger": 90}, 500)[:2]
    assert {came.word, went.word} <= {"dog", "tiger", "cat"}
    # A large number of captions makes a difference sure, but not large enough to matter.
    assert word_changes({"dog": 500_000}, 1_000_000, {"dog": 510_000}, 1_000_000) == []
