"""The benchmark of programs measures both formats and refuses other tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import programs
from model.refusal import Refusal


def test_both_formats_of_a_tiny_captioner_are_measured_and_shown(tmp_path: Path):
    programs.write_captioners(tmp_path, ["fp32"], tiny=True)
    rows = programs.measure(tmp_path, ["fp32"], 1)
    assert [row["name"] for row in rows] == ["TorchScript fp32", "programs fp32"]
    for row in rows:
        assert row["load_seconds"] > 0
        assert row["megabytes"] > 0
        assert row["memory_mb"] > 0
        assert all(each > 0 for each in row["ms"])
    head = {"command": "c", "cores": 2, "threads": 1, "processor": "p", "date": "d"}
    section = programs.programs_section({"here": {**head, "formats": rows}})
    (first,) = (line for line in section.splitlines() if line.startswith("| TorchScript fp32 |"))
    assert first.count(" 1.00 |") == 2  # beside itself


def test_other_tokens_are_refused():
    written = {
        ("caption", f"{name} fp32", *case): [[1, 2]]
        for name in programs.WRITERS
        for case in programs.CASES
    }
    programs.check_same(written, ["fp32"])
    written["caption", "programs fp32", *programs.CASES[1]] = [[1, 3]]
    with pytest.raises(Refusal, match="in fp32 the formats write other tokens"):
        programs.check_same(written, ["fp32"])
