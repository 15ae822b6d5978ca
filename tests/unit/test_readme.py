"""README tells the truth: its commands exist, its settings are settings, its JSON is ours."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys

import pytest

from model.options import OPTIONS
from tests import ROOT
from training.config import load_config

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
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_explains_itself(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_every_setting_is_a_setting():
    words = shlex.split(SHELL, comments=True) + INLINE.split()
    blocks = "prepare|folder|webdataset|coco|features|train|quality|evaluate|clip"
    pattern = rf"experiment=[a-z-]+|({blocks})\.[a-z0-9_.]+="
    overrides = [word for word in words if re.match(pattern, word)]
    assert any(word.startswith("experiment=") for word in overrides)
    assert len([word for word in overrides if not word.startswith("experiment=")]) >= 5
    assert len(overrides) >= 5
    load_config(overrides)


def test_options_named_are_the_options_there_are():
    listed = README.partition("same names everywhere:")[2].partition(", as")[0]
    assert set(re.findall(r"`([a-z_]+)`", listed)) == set(OPTIONS)


def test_the_json_shown_has_the_fields_of_a_reply():
    shown = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    assert shown.keys() == {"caption", "confidence", "quality", "captions", "model"}
    assert shown["captions"][0].keys() == {
        *("caption", "confidence", "quality", "log_prob", "tokens", "finish_reason")
    }


def test_every_file_named_exists():
    for name in re.findall(r"`((?:training|benchmarks|tests|model)/[a-z_/]+\.[a-z]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / name).exists(), name
