"""What the faults on purpose count as lost, and how their outcome is written."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from deploy.errors import ServeError
from loadtests.chaos import __main__ as chaos
from loadtests.chaos import report
from loadtests.chaos.case import Case, Failed, Outcome, Skipped, check, wait_until
from loadtests.chaos.clients import ANSWERED, REFUSED, Clients, Sample, draw_pictures
from loadtests.chaos.stage import Stage


def outcomes(tmp_path: Path, *runs: object) -> tuple[list[Outcome], list[Stage]]:
    """Outcomes of cases that end in these ways."""

    def case(number: int, end: object) -> Case:
        def run(stage: Stage) -> str:
            clients = Clients("http://nowhere", [])
            clients.samples += [Sample(1.0, 0.5, ANSWERED), Sample(2.0, 7.25, ANSWERED)]
            clients.samples += [Sample(3.0, 9.0, "504 deadline"), Sample(4.0, 0.1, REFUSED)]
            stage.clients = clients
            stage.mark("broken")
            if isinstance(end, Exception):
                raise end
            return str(end)

        return Case(f"case-{number}", "a | b", "no request lost", run)

    cases = [case(number, end) for number, end in enumerate(runs)]
    stages = [Stage(tmp_path / each.name, tmp_path / "clipcap.mar", []) for each in cases]
    return [chaos.run(*pair) for pair in zip(cases, stages, strict=True)], stages


def test_a_case_passes_fails_or_is_skipped(tmp_path: Path):
    found, _ = outcomes(tmp_path, "all well", Failed("3 lost"), Skipped("no disk"), KeyError("x"))
    assert [each.result for each in found] == ["passed", "failed", "skipped", "failed"]
    assert [each.seen for each in found] == ["all well", "3 lost", "no disk", "KeyError: 'x'"]
    assert {(each.requests, each.lost, each.slowest) for each in found} == {(4, 1, 7.25)}


def test_the_report_has_the_table_the_figures_and_the_plot(tmp_path: Path):
    found, stages = outcomes(tmp_path, "all well", Failed("3 lost"))
    report.write(tmp_path, found[:1])
    report.write(tmp_path, found[1:])  # the row of the first stays
    report.write_plot(tmp_path / "chaos.png", found, stages)
    table = (tmp_path / "chaos.md").read_text().splitlines()
    assert table[2] == (
        r"| case-0 | a \| b | no request lost | all well | 4 | 1 | 7.2 s | passed |"
    )
    kept = json.loads((tmp_path / "chaos.json").read_text())
    assert kept["passed"] is False
    assert [case["result"] for case in kept["cases"]] == ["passed", "failed"]
    assert (tmp_path / "chaos.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_goes_between_the_marks_of_a_page(tmp_path: Path):
    page, kept = tmp_path / "page.md", tmp_path / "chaos.json"
    page.write_text(f"a\n{report.BEGIN}\nold\n{report.END}\nb\n")
    with pytest.raises(ServeError, match=r"chaos\.json does not exist; make it: make chaos"):
        report.write_page(page, kept)
    report.write(tmp_path, outcomes(tmp_path, "all well")[0])
    report.write_page(page, kept)
    before, _, after = page.read_text().partition("Seen with `make chaos` in 0 minutes, ")
    assert before == f"a\n{report.BEGIN}\n"
    assert "| no request lost | all well | 4 | 1 | 7.2 s | passed |\n<!-- /faults -->\nb" in after
    page.write_text("no marks")
    with pytest.raises(ServeError, match="lacks the marks"):
        report.write_page(page, kept)


def test_the_page_of_operations_has_the_marks():
    assert report.BEGIN in chaos.PAGE.read_text()
    assert report.END in chaos.PAGE.read_text()


def test_a_refused_connection_is_no_lost_request_where_that_is_allowed():
    clients = Clients("http://nowhere", [])
    clients.samples.append(Sample(1.0, 0.1, REFUSED))
    clients.check_none_lost(allow_refused=True)
    with pytest.raises(Failed, match="1 of 1 requests lost: connection refused"):
        clients.check_none_lost()
    clients.samples.append(Sample(1.0, 0.1, "503 overloaded"))
    with pytest.raises(Failed, match="1 of 2 requests lost: 503 overloaded"):
        clients.check_none_lost(allow_refused=True)
    clients.count_as_refused(clients.samples[1])
    clients.check_none_lost(allow_refused=True)


def test_a_check_says_what_was_seen():
    check(True, "nothing")
    with pytest.raises(Failed, match="no worker after 0.2 s"):
        wait_until(lambda: False, 0.2, "no worker")
    assert wait_until(lambda: True, 0.2, "no worker") < 0.1


def test_pictures_differ_and_are_drawn_alike_each_time():
    assert len(set(draw_pictures(3))) == 3
    assert draw_pictures(3) == draw_pictures(3)


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in chaos.CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "earthquake"], "error: there is no case earthquake; known: worker-killed, "),
        (["--archive", "nowhere.mar"], "error: nowhere.mar does not exist; give another --archive"),
    ],
)
def test_a_wrong_word_ends_the_command_with_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["chaos", *words, "--out", str(tmp_path)])
    assert chaos.main() == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_the_exit_status_is_1_if_a_case_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = tmp_path / "clipcap.mar"
    archive.touch()
    words = ["chaos", "--archive", str(archive), "--out", str(tmp_path)]
    case = Case("well", "nothing", "nothing", lambda stage: "nothing")

    def fail(stage: Stage) -> str:
        raise Failed("a fault")

    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(chaos, "CASES", [case])
    assert chaos.main() == 0
    monkeypatch.setattr(chaos, "CASES", [case, dataclasses.replace(case, name="bad", run=fail)])
    assert chaos.main() == 1
