"""docs/cloud.md and docs/kubernetes.md: their files exist, their names are set before their use."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.config import Config

from tests import ROOT

PAGES = [ROOT / "docs" / name for name in ("cloud.md", "kubernetes.md")]
CLOUD = PAGES[0].read_text()


def commands(text: str) -> list[str]:
    """Every line of a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_is_named_exists(page: Path):
    named = re.findall(r"(?<![\w./])(?:deploy|\.github|tests)/[\w./-]*\w", page.read_text())
    named = [name for name in named if not name.startswith("deployment/")]
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_one_for_a_shell(page: Path):
    for line in commands(page.read_text()):
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, check=False)
        assert not done.returncode, line
        assert shlex.split(line)


def test_every_name_is_set_before_it_is_used():
    known: set[str] = set()
    for line in commands(CLOUD):
        used = set(re.findall(r"\$([A-Z_]+)", line))
        for name in re.findall(r"deploy\.cloud\.render (\S+)", line):
            used |= set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", (ROOT / name).read_text()))
        if line.startswith("export "):
            for word in line.removeprefix("export ").split(" "):
                name, is_assignment, value = word.partition("=")
                assert set(re.findall(r"\$([A-Z_]+)", value)) <= known, line
                if is_assignment and name.isupper():
                    known.add(name)
        else:
            assert used <= known, line


def test_every_file_of_the_folder_is_used_by_the_page():
    rendered = set(re.findall(r"deploy\.cloud\.render deploy/cloud/(\w+)\.yaml", CLOUD))
    files = {file.stem for file in (ROOT / "deploy" / "cloud").glob("*.yaml")}
    assert files == rendered | {"cloudbuild"}


def test_dvc_takes_the_bucket_as_its_remote(tmp_path: Path):
    (line,) = [line for line in commands(CLOUD) if "dvc remote add" in line]
    words = shlex.split(line.replace("$BUCKET", "my-bucket"))
    assert words.pop(0) == ".venv/bin/dvc"
    for arguments in (["init", "--quiet", "--no-scm"], words):
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
    config = Config(str(tmp_path / ".dvc"))
    assert config["core"]["remote"] == "storage"
    assert config["remote"]["storage"]["url"] == "gs://my-bucket/dvc"


def test_the_workflow_reads_the_remote_as_the_page_sets_it():
    text = (ROOT / ".github" / "workflows" / "image.yml").read_text()
    for name in re.findall(r"`((?:DVC|GCP)_[A-Z_]+)`", CLOUD):
        assert f"vars.{name}" in text, name
    fetch = next(step for step in yaml.safe_load(text)["jobs"]["captioner"]["steps"]
                 if step.get("name") == "fetch from the DVC remote")  # fmt: skip
    assert "dvc pull archive" in fetch["run"]
