"""`thresholds.yaml` is read strictly, and its limits name figures that its profiles have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.figures import measure
from loadtests.profiles import LoadTestError, Profile, Stage, profile_from, read_profiles
from loadtests.records import Outcome, Record, Span
from loadtests.run import Run

PROFILES = read_profiles()
GIVEN: dict[str, Any] = {
    "about": "a little",
    "kinds": {"bytes": 1},
    "stages": [{"name": "load", "users": 2, "seconds": 3}],
    "limits": {"max_refused": 0},
}


def test_every_profile_that_is_wanted_is_there():
    assert [*PROFILES] == ["torchserve", "smoke", "load", "stress", "spike", "soak", "mixed"]
    assert [name for name, each in PROFILES.items() if not each.gateway] == ["torchserve"]
    assert PROFILES["stress"].stages[1].times_peak == 3
    assert PROFILES["soak"].stages[0].requests == 50_000
    assert all(each.limits["max_wrong_replies"] == 0 for each in PROFILES.values())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_limit_names_a_figure_of_its_profile(profile: Profile):
    spans, records, at = [], [], 0.0
    for stage in profile.stages:
        wanted = 8.0 if stage.times_peak else 0.0
        spans.append(Span(stage.name, at, at, at + 20, wanted))
        for n in range(160):
            outcome: Outcome = "refused" if len(spans) == 2 and n % 2 else "answered"
            status = 503 if outcome == "refused" else 200
            client = [*profile.clients][n % 4 % len(profile.clients)]
            records.append(Record(at + n / 8, 10, "bytes", client, status, outcome))
        at += 20
    names = ("gateway", "worker", "java")
    samples = [
        {"seconds": float(n), **{f"{name}_mb": 100.0 for name in names}} for n in range(int(at))
    ]
    figures = measure(records, spans, samples)
    missing = [limit for limit in profile.limits if limit.partition("_")[2] not in figures]
    assert not missing


def test_a_part_of_a_profile_has_shorter_stages_and_the_same_limits():
    part = PROFILES["stress"].shortened(0.1)
    assert [stage.seconds for stage in part.stages] == pytest.approx([4, 6])
    assert part.stages[0].settle_seconds == pytest.approx(1)
    assert part.limits == PROFILES["stress"].limits
    assert PROFILES["soak"].shortened(0.001).stages[0].requests == 50


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kinds": {"fax": 1}}, "unknown kind 'fax'; known: "),
        ({"kinds": {}}, "must not be empty"),
        ({"gateway": False}, "only kinds predictions_... can be sent"),
        ({"stages": [{"name": "x", "seconds": 1}]}, "x needs either users or times_peak"),
        ({"stages": [{"name": "x", "users": 1}]}, "x needs either seconds or requests"),
        (
            {"stages": [{"name": "x", "times_peak": 2, "seconds": 1}]},
            "the first stage cannot have times_peak",
        ),
        ({"limits": {"median_ms": 1}}, "must begin with max_ or min_"),
        ({"colour": "red"}, "colour"),
        ({"stages": [{"name": "x", "user": 1, "seconds": 1}]}, "'user'"),
    ],
)
def test_a_profile_that_cannot_be_run_is_refused(change: dict[str, Any], problem: str):
    with pytest.raises(LoadTestError, match=r"thresholds\.yaml: mine: ") as error:
        profile_from("mine", {**GIVEN, **change})
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_locust_is_told_the_whole_run(tmp_path: Path):
    profile = dataclasses.replace(
        profile_from("mine", GIVEN), stages=(Stage("a", users=1, seconds=2), Stage("b", 0, 3, 4))
    )
    paths = [tmp_path / name for name in ("pictures", "requests.csv", "spans.json")]
    run = Run(profile, "http://127.0.0.1:1", {"one": "key"}, paths[0], 7, *paths[1:])
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 7
