"""Quality from feedback: figures against references, and what is written of them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, insert

from feedback import schema
from feedback.database import open_database, reading, writing
from feedback.tables import feedback
from monitoring.quality.__main__ import main
from monitoring.quality.figures import DAY, Quality, measure, week_of
from monitoring.quality.intervals import Mean, share
from monitoring.quality.words import CorrectedWords, changes
from tests import ROOT
from training.evaluation.scores.scoring import cider

#: A Monday at noon.
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
CAPTIONS = ["a red boat on the sea", "two dogs on a sofa", "a man rides a horse", "the blue house"]
#: Age in days, version, caption, thumbs, correction.
Row = tuple[float, str, str, int | None, str | None]


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = open_database(database, create=True)
    schema.upgrade(made)
    yield made
    made.dispose()


def fill(engine: Engine, rows: Sequence[Row], now: float = NOW) -> None:
    values: list[dict[str, Any]] = [
        {
            "answer_id": number, "caption_index": 0, "caller": "c", "request_id": "r",
            "picture_index": 0, "given": now - DAY * age, "answered": now - DAY * age,
            "model": "clipcap", "version": version, "caption": caption, "confidence": 0.5,
            "quality": None, "thumbs": thumbs, "correction": correction, "picture": None,
        }
        for number, (age, version, caption, thumbs, correction) in enumerate(rows, 1)
    ]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(feedback), values)


def measured(engine: Engine, weeks: int = 26) -> Quality:
    with reading(engine) as connection:
        return measure(connection, NOW - 7 * DAY * weeks, NOW)


def test_weeks_and_versions_are_counted_apart(engine: Engine):
    rows: list[Row] = [
        (0.1, "1.1", "a dog", 1, None),
        (0.2, "1.1", "a dog", -1, "a cat"),
        (0.3, "1.0", "a dog", 1, None),
        (1.0, "1.1", "a dog", None, "a bird"),  # Sunday, so the week before
        (400, "1.0", "a dog", 1, None),  # too long ago
    ]
    fill(engine, rows)
    found = measured(engine)
    assert found.rows == 4
    counts = {key: (each.feedback, each.up, each.down, each.corrections)
              for key, each in found.weeks.items()}  # fmt: skip
    assert counts == {
        ("2026-W49", "clipcap", "1.1"): (2, 1, 1, 1),
        ("2026-W49", "clipcap", "1.0"): (1, 1, 0, 0),
        ("2026-W48", "clipcap", "1.1"): (1, 0, 0, 1),
    }
    assert {key: each.feedback for key, each in found.models.items()} == {
        ("last_7_days", "clipcap"): 4
    }


def test_cider_is_that_of_the_evaluation(engine: Engine):
    """Of one week and one version: the reference computes word frequencies from the same rows."""
    draw = random.Random(1)
    pairs = [(draw.choice(CAPTIONS), " ".join(draw.sample(CAPTIONS, 2))) for _ in range(1200)]
    pairs += [(caption, caption) for caption in CAPTIONS]
    fill(engine, [(0.1, "1.0", caption, None, right) for caption, right in pairs])
    generated = {number: caption for number, (caption, _) in enumerate(pairs)}
    references = {number: [right] for number, (_, right) in enumerate(pairs)}
    [tally] = measured(engine).weeks.values()
    estimate = tally.cider.estimate()
    assert estimate is not None
    assert estimate.value == pytest.approx(cider(generated, references), abs=1e-9)
    assert tally.corrections == len(pairs)


def test_a_shorter_look_back_reads_less(engine: Engine):
    fill(engine, [(10.0, "1.0", "a", 1, None), (20.0, "1.0", "a", 1, None)])
    assert measured(engine, weeks=2).rows == 1
    assert measured(engine, weeks=3).rows == 2


def test_intervals():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: Wilson without correction.
    for successes, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                     (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        found = share(successes, of)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    assert share(0, 0) is None
    mean = Mean()
    for value in (1.0, 2.0, 4.0):
        mean.add(value)
    found = mean.estimate()
    assert found is not None
    assert found.value == pytest.approx(7 / 3)
    assert found.high - found.value == pytest.approx(1.959964 * (7 / 3 / 3) ** 0.5)
    single = Mean()
    single.add(1.0)
    assert single.estimate() is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("A dog on grass", "a cat on grass.", [("dog", "cat")]),
        ("a dog on grass", "the cat on grass", [("a", "the"), ("dog", "cat")]),
        ("a dog", "a big brown dog", [("", "big brown")]),
        ("two small dogs", "two dogs", [("small", "")]),
        ("a red house", "a very old house", [("red", "very old")]),
        ("a dog", "A dog!", []),
    ],
)
def test_which_words_a_correction_changes(before: str, after: str, expected: list[Any]):
    assert list(changes(before, after)) == expected


def test_words_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("monitoring.quality.words.MOST", 20)
    words = CorrectedWords()
    for number in range(100):
        words.add("a dog", "a cat")
        words.add("a dog", f"a {number}")
    assert words.most_common(1) == [("dog", "cat", 100)]
    assert len(words.most_common(1000)) <= 21


def test_a_week_is_one_of_iso_in_utc():
    assert week_of(datetime(2027, 1, 3, 23, 59, tzinfo=UTC).timestamp()) == "2026-W53"
    assert week_of(datetime(2027, 1, 4, 0, 0, tzinfo=UTC).timestamp()) == "2027-W01"


def test_the_command_prints_and_writes_all_of_it(
    engine: Engine, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    now = time.time()
    rows: list[Row] = [
        (age, "1.0" if age > 7 else "1.1", "an orange boat", 1 if i % 4 else -1,
         None if i % 4 else "a red boat at sea")
        for i, age in enumerate(x * 0.25 - 0.1 for x in range(1, 161))
    ]  # fmt: skip
    fill(engine, rows, now)
    files = {name: tmp_path / "out" / f"q.{name}" for name in ("png", "json", "prom")}
    words = ["--plot", files["png"], "--json", files["json"], "--textfile", files["prom"]]
    assert main(["--database", database, *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "clipcap 1.1" in said
    assert "160 feedbacks of 26 weeks in " in said
    assert "orange   red" in said
    assert Image.open(files["png"]).size > (500, 300)
    figures = json.loads(files["json"].read_text())
    assert sum(week["feedback"] for week in figures["weeks"]) == 160
    assert {"before": "orange", "after": "red", "times": 40} in figures["words"]
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(files["prom"].read_text())
        for sample in family.samples
    }
    assert samples["clipcap_feedback_thumbs", "clipcap", "last_7_days"] == 28
    assert samples["clipcap_version_feedback_thumbs", "1.0", "28_days_before", "clipcap"] == 112
    assert samples["clipcap_feedback_corrections", "28_days_before", "clipcap"] == 28
    updated = samples["clipcap_feedback_updated_timestamp_seconds",]
    assert abs(updated - now) < 120
    low, value, high = (
        samples[f"clipcap_feedback_thumbs_up_share{end}", "clipcap", "last_7_days"]
        for end in ("_low", "", "_high")
    )
    assert low < value < high
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=files["prom"].read_bytes(), check=False
        )
        assert checked.returncode == 0


def test_without_feedback_there_is_an_empty_table(
    engine: Engine, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--plot", str(tmp_path / "q.png"), "--textfile", str(tmp_path / "q.prom")]
    assert main(["--database", database, *words]) == 0
    assert "0 feedbacks of 26 weeks" in capsys.readouterr().out
    assert "clipcap_feedback_updated_timestamp_seconds" in (tmp_path / "q.prom").read_text()


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--database", f"sqlite:///{tmp_path / 'none.db'}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for words, message in (
        (["--weeks", "0"], "--weeks is 0; it must be from 1"),
        (["--textfile", "gauges.txt"], "the node exporter reads only *.prom"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")
def test_the_alerts_fire_for_a_fall_and_not_on_a_calm_day():
    for words in (["check", "rules", "monitoring/prometheus/rules/quality.yml"],
                  ["test", "rules", "tests/rules/quality.yml"]):  # fmt: skip
        done = subprocess.run(
            ["promtool", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
