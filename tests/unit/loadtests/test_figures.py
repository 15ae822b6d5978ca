"""The figures of runs whose records are made by hand, so that each is known beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loadtests.__main__ import judge, main
from loadtests.figures import captions_per_second, measure
from loadtests.page import BEGIN, END, PAGE, write_page
from loadtests.profiles import LoadTestError
from loadtests.records import Outcome, Record, Span, read_records, write_records
from loadtests.report import plot, tables
from loadtests.samples import Sample, write_samples
from loadtests.servers import Servers

STATUS: dict[Outcome, int] = {"answered": 200, "refused": 503, "wrong": 200, "unanswered": 0}


def sent(
    begin: float,
    end: float,
    per_second: float,
    ms: float,
    outcome: Outcome = "answered",
    client: str = "one",
) -> list[Record]:
    """Requests at even distances."""
    count = round((end - begin) * per_second)
    return [
        Record(begin + n / per_second, ms, "bytes", client, STATUS[outcome], outcome)
        for n in range(count)
    ]


def samples(values: Iterable[float], name: str = "worker_mb") -> list[Sample]:
    """A sample each second, from second 1."""
    return [{"seconds": float(second), name: value} for second, value in enumerate(values, 1)]


def test_what_was_not_answered_is_counted_by_what_became_of_it():
    records = [
        *sent(0, 10, 9, 100),
        *sent(0, 10, 1, 300),
        *sent(0, 10, 1, 20, "refused"),
        *sent(0, 10, 0.3, 50, "wrong"),
        *sent(0, 10, 0.2, 50, "unanswered"),
    ]
    found = measure(records, [Span("load", 0, 0, 10)], [])
    assert (found["requests"], found["refused"]) == (115, 10)
    assert (found["wrong_replies"], found["unanswered"]) == (3, 2)
    assert (found["requests_per_second"], found["median_ms"], found["p99_ms"]) == (10, 100, 300)
    assert (found["refusal_p99_ms"], found["refusal_slowest_ms"]) == (20, 20)


def test_captions_in_place_of_others_are_counted():
    records = [each._replace(ties=1) for each in sent(0, 1, 2, 10)] + sent(0, 1, 98, 10)
    assert measure(records, [Span("load", 0, 0, 1)], [])["ties_percent"] == 2


def test_the_peak_is_what_came_in_the_measured_part():
    # Five a second while users start, then twenty; the last second's replies come after the end.
    records = [*sent(0, 5, 5, 10), *sent(5, 15, 20, 1000)]
    assert captions_per_second(records, Span("peak", 0, 6, 15)) == pytest.approx(20)
    refused = [*records, *sent(6, 15, 50, 10, "refused")]
    assert captions_per_second(refused, Span("peak", 0, 6, 15)) == pytest.approx(20)


def test_overload_is_compared_with_the_peak():
    spans = [Span("peak", 0, 0, 10), Span("overload", 10, 10, 20, wanted_per_second=60)]
    records = [
        *sent(0, 10, 20, 1),
        *sent(10, 20, 18, 1),
        *sent(10, 20, 39, 2, "refused"),
    ]
    found = measure(records, spans, [])
    assert found["peak_per_second"] == pytest.approx(20)
    assert found["captions_percent_of_peak"] == pytest.approx(90)
    assert found["sent_percent_of_wanted"] == pytest.approx(95)


def test_recovery_is_the_time_until_replies_come_as_before():
    spans = [Span("before", 0, 0, 10), Span("spike", 10, 10, 20), Span("after", 20, 20, 40)]
    before, spike = sent(0, 10, 10, 100), sent(10, 20, 10, 2000)
    slow_then_quick = [*sent(20, 24, 10, 900), *sent(24, 40, 10, 110)]
    assert measure([*before, *spike, *slow_then_quick], spans, [])["recovery_seconds"] == 2
    # From second 22 most replies of five seconds are quick; a refusal in there is no recovery.
    refused = [*slow_then_quick, *sent(24, 25, 1, 5, "refused")]
    assert measure([*before, *spike, *refused], spans, [])["recovery_seconds"] == 5
    never = sent(20, 40, 10, 160)
    assert "recovery_seconds" not in measure([*before, *spike, *never], spans, [])


def test_growth_leaves_the_first_quarter_out():
    memory = [100, 500, *[600] * 8, *[620] * 10]
    records = [*sent(0, 5, 10, 5), *sent(5, 10, 10, 100), *sent(10, 20, 10, 130)]
    found = measure(records, [Span("soak", 0, 0, 20)], samples(memory))
    assert found["worker_growth_mb"] == 20
    assert found["median_growth_percent"] == 30


def test_the_client_that_sends_little_is_compared_with_the_one_that_sends_much():
    records = [*sent(0, 10, 40, 800, client="many"), *sent(0, 10, 4, 400, client="few")]
    found = measure(records, [Span("mixed", 0, 0, 10)], [])
    assert found["light_client_median_percent"] == 50
    assert found["clients"]["few"]["requests"] == 40


def test_processor_time_is_that_of_the_last_stage():
    spans = [Span("peak", 0, 0, 10), Span("overload", 10, 15, 20)]
    found = measure(sent(0, 20, 1, 1), spans, samples([10] * 14 + [50] * 5, "locust_cpu"))
    assert found["locust_cpu_percent"] == 50


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        ({"wrong_replies": 0, "requests_per_second": 5.0}, None),
        ({"wrong_replies": 1, "requests_per_second": 5.0}, "1 wrong replies; the limit is 0"),
        (
            {"wrong_replies": 0, "requests_per_second": 4.5},
            "4.5 requests per second; at least 5 are wanted",
        ),
        (
            {"wrong_replies": 0},
            "requests per second: not measured, because the run had nothing to measure it on",
        ),
    ],
)
def test_a_run_is_judged_by_its_limits(figures: dict[str, Any], problem: str | None):
    limits = {"max_wrong_replies": 0, "min_requests_per_second": 5}
    assert judge(figures, limits) == ([] if problem is None else [problem])


def test_records_come_back_from_their_file(tmp_path: Path):
    odd = Record(1764416000.125, 12.34, "json", "a", 0, "unanswered", 0, 'b"x", reset\nby peer')
    records = [*sent(0, 1, 3, 10), odd._replace(ties=2)]
    write_records(tmp_path / "requests.csv", records)
    found = read_records(tmp_path / "requests.csv")
    assert [each._replace(begin=0) for each in found] == [
        each._replace(begin=0) for each in records
    ]
    assert found[-1].begin == odd.begin


def test_the_table_names_every_figure_and_limit_and_the_plot_is_drawn(tmp_path: Path):
    spans = [Span("peak", 0, 0, 10), Span("overload", 10, 10, 20, wanted_per_second=30)]
    records = [*sent(0, 20, 10, 80), *sent(10, 20, 20, 4, "refused")]
    memory = [{**each, "worker_cpu": 90.0} for each in samples([100] * 19)]
    figures = measure(records, spans, memory)
    limits = {"max_refusal_p99_ms": 100, "min_captions_percent_of_peak": 90, "max_x": 1}
    result = {"profile": "stress", "about": "too much", "limits": limits, "figures": figures}
    text = tables(result)
    assert text.startswith("# stress: too much\n")
    assert "| refusal p99 ms | 4.0 | at most 100 |" in text
    assert "| captions percent of peak | 100.0 | at least 90 |" in text
    assert "| x | not measured | at most 1 |" in text
    assert "\n| overload |" in text
    plot(tmp_path / "plot.png", "stress", records, spans, memory)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    write_samples(tmp_path / "samples.csv", [*memory, {"seconds": 20.0, "locust_mb": 1.0}])
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("seconds,worker_mb,worker_cpu,locust_mb", "20.0,,,1.0")


def summary(**more: Any) -> dict[str, Any]:
    figures = {"requests": 1200, "requests_per_second": 40.2, "median_ms": 150, "refused": 3}
    return {
        "part": 1,
        "cores": 2,
        "processor": "A chip",
        "date": "2026-11-29",
        "limits": {"max_refused": 0, "max_java_growth_mb": 50, "max_unanswered": 0},
        "figures": {**figures, "java_growth_mb": 1.5, "unanswered": 0},
        **more,
    }


def test_the_page_gets_a_row_for_each_profile_that_was_run(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    with pytest.raises(LoadTestError, match="has no PROFILE/summary"):
        write_page(page, tmp_path)
    for name in ("soak", "load"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary()))
    write_page(page, tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| profile | requests | answered/s |")
    row = "1200 | 40.2 | 150 |  |  | 3 |  | java growth mb 1.5 |"
    assert text.index(f"| load | {row}") < text.index(f"| soak | {row}")
    assert "old" not in text
    assert text.endswith(f"Measured on 2 cores, A chip, 2026-11-29.\n{END}\nafter\n")
    (tmp_path / "soak" / "summary.json").write_text(json.dumps(summary(part=0.1)))
    with pytest.raises(LoadTestError, match="soak was run in part"):
        write_page(page, tmp_path)


def test_the_page_of_operations_has_the_marks():
    text = PAGE.read_text()
    assert 0 < text.index(BEGIN) < text.index(END)


def test_a_worker_that_ended_or_is_another_one_is_noticed():
    with subprocess.Popen(["sleep", "60"]) as worker:
        process = psutil.Process(worker.pid)
        workers = [worker.pid]
        torchserve: Any = SimpleNamespace(workers=lambda: workers)
        servers = Servers("", torchserve, {}, {"worker": [process], "java": [psutil.Process()]})
        assert servers.survived()
        workers = [worker.pid + 1]
        assert not servers.survived()
        workers = [worker.pid]
        worker.kill()
    assert not servers.survived()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["flood"], "there is no profile 'flood'; known: torchserve, smoke, "),
        (["smoke", "--part", "0"], "--part is 0; it must be above 0 and at most 1"),
    ],
)
def test_a_wrong_word_of_the_command_is_refused(
    words: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["loadtests", *words])
    with pytest.raises(SystemExit):
        main()
    assert problem in capsys.readouterr().err
