"""The faults on purpose run against the tiny captioner: two of them, so that none of it rots."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

from loadtests.chaos import report
from loadtests.chaos.__main__ import CASES, run
from loadtests.chaos.clients import draw_pictures
from loadtests.chaos.stage import Stage
from loadtests.chaos.worker_faults import kill_worker


def test_a_killed_worker_and_an_archive_with_other_weights(tiny_archive: Path, tmp_path: Path):
    known = {case.name: case for case in CASES}
    once = functools.partial(kill_worker, kills=1)
    cases = [dataclasses.replace(known["worker-killed"], run=once), known["archive-tampered"]]
    pictures = draw_pictures(4)
    stages = [Stage(tmp_path / case.name, tiny_archive, pictures) for case in cases]
    outcomes = [run(case, stage) for case, stage in zip(cases, stages, strict=True)]
    assert [each.result for each in outcomes] == ["passed", "passed"], outcomes
    killed, tampered = outcomes
    assert killed.requests > 12
    assert killed.lost == 0
    assert "pictures were sent once more" in killed.seen
    assert "SHA-256" in tampered.seen
    assert tampered.requests == 0
    report.write(tmp_path, outcomes)
    assert json.loads((tmp_path / "chaos.json").read_text())["passed"] is True
    assert [text for _, text in stages[0].marks] == ["kill 1"]
