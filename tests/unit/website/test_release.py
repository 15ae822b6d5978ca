"""A release: what the workflow asks before it makes one, and what workflows run.

Their schema is held by tests/unit/deploy/test_cloud.py.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import gateway
from model.refusal import Refusal
from tests import ROOT
from website.release_notes import main, release_notes

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository that may be released as 1.2.0."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changes\n\n## [Unreleased]\n\n- later\n\n"
        "## [1.2.0] - 2026-12-01\n\n### Added\n\n- this\n\n"
        "## [1.1.0] - 2026-11-01\n\n- before\n"
    )
    return tmp_path


def test_the_notes_are_the_section_of_the_version(root: Path):
    assert release_notes("v1.2.0", root) == "### Added\n\n- this"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "pyproject.toml",
            "1.2.0",
            "1.3.0",
            "the tag is v1.2.0 and pyproject.toml has version 1.3.0",
        ),
        ("gateway/__init__.py", "1.2.0", "1.1.0", "gateway/__init__.py has version 1.1.0; make it"),
        ("CHANGELOG.md", "[1.2.0]", "[1.2.1]", r"has no section '## \[1.2.0\] - YEAR-MONTH-DAY'"),
        ("CHANGELOG.md", "### Added\n\n- this\n\n", "", "has no section"),
        ("CHANGELOG.md", "] - 2026-12-01", "]", "has no date"),
    ],
)
def test_a_release_that_does_not_fit_is_refused(
    root: Path, file: str, old: str, new: str, said: str
):
    path = root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(Refusal, match=said):
        release_notes("v1.2.0", root)


def test_the_command_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["release_notes", "v0.0.0"])
    with pytest.raises(SystemExit, match=r"^error: the tag is v0\.0\.0"):
        main()


def test_versions_agree_and_the_changes_have_a_section():
    assert gateway.__version__ == VERSION
    assert re.search(rf"^## \[{re.escape(VERSION)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_page_of_versions_has_the_numbers_of_the_code():
    [form] = re.findall(r"^FORMAT = (\d+)$", (ROOT / "model" / "artifact.py").read_text(), re.M)
    rows = re.findall(
        r"^\| (\w+) \| .* \| (\S+) \| .* \|$", (ROOT / "docs/versions.md").read_text(), re.M
    )
    assert dict(rows[1:]) == {
        "package": VERSION, "contract": "v1", "artifact": form, "captioner": "1.0",
    }  # fmt: skip


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_what_a_workflow_runs_exists(workflow: Path):
    text = workflow.read_text()
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= targets
    for module in set(re.findall(r"-m ([a-z_.]+)", text)) - {"venv", "pip"}:
        assert importlib.util.find_spec(module), module
    for job in yaml.safe_load(text)["jobs"].values():
        if called := job.get("uses"):
            assert (ROOT / called).is_file()
        else:
            assert job["timeout-minutes"] <= 120
