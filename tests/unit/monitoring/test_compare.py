"""The table of two captioners: figures against known values, and what it says of them."""

from __future__ import annotations

import json
import math
import random
import statistics

import pytest

from client import Caption, CaptionResult
from gateway.captioning.backends import Backends
from gateway.captioning.version_measures import VersionMeasures
from gateway.settings import Settings
from monitoring import compare
from monitoring.compare import Metrics, as_json, rows_of, table
from monitoring.histogram import Histogram, share_of
from tests.integration.gateways import free_port


def histogram_of(values: list[float], limits: list[float]) -> Histogram:
    ends = [*limits, math.inf]
    begins = [-math.inf, *limits]
    counts = [
        sum(begin < value <= end for value in values)
        for begin, end in zip(begins, ends, strict=True)
    ]
    return Histogram(ends, counts, sum(values))


def test_figures_of_a_histogram_are_those_of_its_values():
    rng = random.Random(3)
    values = [rng.gammavariate(4, 0.1) for _ in range(4000)]
    found = histogram_of(values, [n / 50 for n in range(1, 100)])
    assert found.mean().value == pytest.approx(statistics.fmean(values))
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    assert found.mean().high - found.mean().value == pytest.approx(half, rel=0.05)
    ordered = sorted(values)
    for share in (0.5, 0.95):
        quantile = found.quantile(share)
        assert quantile.value == pytest.approx(ordered[int(share * len(values))], abs=0.01)
        assert quantile.low < quantile.value < quantile.high


def test_an_interval_of_a_quantile_holds_the_true_one_in_95_of_100_cases():
    rng, held = random.Random(5), 0
    limits = [n / 100 for n in range(1, 101)]
    for _ in range(300):
        quantile = histogram_of([rng.random() for _ in range(200)], limits).quantile(0.9)
        held += quantile.low <= 0.9 <= quantile.high
    assert 0.9 < held / 300 < 0.99


def test_an_interval_of_a_share():
    assert share_of(0, 0).value != share_of(0, 0).value
    none = share_of(0, 100)  # Wilson's interval of 0 of 100
    assert (none.value, none.low) == (0, pytest.approx(0, abs=1e-9))
    assert none.high == pytest.approx(0.0370, abs=1e-3)
    half = share_of(50, 100)
    assert (half.low, half.high) == (
        pytest.approx(0.4038, abs=1e-3),
        pytest.approx(0.5962, abs=1e-3),
    )


CANDIDATE = {
    f"candidate_{name}": "http://127.0.0.1:9999" for name in ("inference", "management", "metrics")
}


def page(count: int, *, shadow: bool = True) -> Metrics:
    """Metrics as the gateway writes them: the candidate is slower, and fails one in ten."""
    measures, rng = VersionMeasures(), random.Random(7)

    def result(caption: str, version: str) -> CaptionResult:
        return CaptionResult((Caption(caption, 0.7, -2.0, 6),), "clipcap", version)

    for number in range(count):
        stable, candidate = (
            result("two red boats on a lake", "1.0-a"),
            result("two red boats", "1.0-b"),
        )
        measures.captioned("stable", stable, rng.uniform(0.1, 0.2))
        if number % 10:
            measures.captioned("candidate", candidate, rng.uniform(0.3, 0.5))
            measures.compared(stable, stable if number % 2 else candidate)
        else:
            measures.failed("candidate")
    backends = Backends(Settings(candidate_shadow=shadow, **CANDIDATE))
    return Metrics(measures.text(backends).decode())


def test_what_differs_is_said():
    rows = {row.name: row for row in rows_of(page(400))}
    assert [each.value for each in rows["captioned"].figures] == [400, 360]
    assert rows["failed, share"].figures[1].value == 0.1
    assert rows["failed, share"].verdict == "higher"
    assert rows["median seconds"].verdict == "higher"
    assert rows["median seconds"].figures[0].value == pytest.approx(0.15, abs=0.02)
    assert rows["p95 seconds"].verdict == "higher"
    assert rows["words"].verdict == "lower"
    assert rows["confidence"].verdict == "no clear difference"


def test_the_table_is_read_at_a_glance():
    said = table(page(400))
    assert "stable:    clipcap 1.0-a at http://127.0.0.1:8080" in said
    assert "gets copies of 10% of the requests" in said
    assert "copies compared: 360" in said
    assert "same caption    55.6% (50.4% to 60.6%)" in said
    assert "fewer than" not in said
    few = table(page(20, shadow=False))
    assert "fewer than 100 pictures of one captioner: only large differences show" in few
    assert "gets 10% of the requests" in few


def test_without_a_candidate_the_stable_one_is_shown():
    measures = VersionMeasures()
    said = table(Metrics(measures.text(Backends(Settings())).decode()))
    assert "candidate: none is tried out; begin: make canary CHECKPOINT=DIR" in said
    assert "median seconds  -" in said


def test_programs_read_json():
    found = json.loads(json.dumps(as_json(page(50)), allow_nan=False))
    assert found["captioned"]["stable"] == {"value": 50, "low": None, "high": None}
    assert found["failed, share"]["verdict"] in ("higher", "no clear difference")
    assert 0 < found["same caption"]["low"] < 1


def test_a_gateway_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("sys.argv", ["compare", "--address", address])
    assert compare.main() == 2
    assert f"error: {address}/metrics does not answer" in capsys.readouterr().err
