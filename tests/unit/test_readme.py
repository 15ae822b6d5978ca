"""README tells the truth: its commands exist, its settings are settings, its JSON is ours."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from model.options import LIMITS
from training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
INLINE = " \n".join(re.findall(r"`([^`\n]+)`", README))


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", SHELL + INLINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize(
    "module", sorted(set(re.findall(r"-m ([a-z_.]+)", SHELL + INLINE)) - {"venv"})
)
def test_every_command_explains_itself(module: str):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_every_setting_is_a_setting():
    words = shlex.split(SHELL, comments=True) + INLINE.split()
    overrides = [
        w
        for w in words
        if re.match(
            r"(prepare|folder|webdataset|coco|features|train|evaluate|clip)\.[a-z0-9_.]+=", w
        )
    ]
    assert len(overrides) >= 5
    load_config(overrides)


def test_options_named_are_the_options_there_are():
    listed = README.partition("form fields:")[2].partition("Without make")[0]
    assert set(re.findall(r"`([a-z_]+)`", listed)) == set(LIMITS)


def test_the_json_shown_has_the_fields_of_a_reply():
    shown = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    assert shown.keys() == {"caption", "confidence", "captions", "model"}
    assert shown["captions"][0].keys() == {"caption", "confidence", "log_prob", "tokens"}


def test_every_file_named_exists():
    for name in re.findall(r"`((?:training|benchmarks|tests|model)/[a-z_/]+\.[a-z]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / name).exists(), name
