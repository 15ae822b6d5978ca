"""The page of a sample, and the words of the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from scale.command_line import parse_arguments
from scale.sample import PAGE, write_sample
from tests import ROOT
from tests.page_blocks import blocks
from tests.pictures import encoded, picture


def test_a_sample_is_a_page_of_some_pictures_and_their_errors(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(20):
        (folder / f"{n:02d} <b>.jpg").write_bytes(encoded(picture((40 + n, 50)), "JPEG"))
    for n in range(20):
        (folder / f"broken {n:02d}.jpg").write_bytes(b"\xff\xd8\xff nothing")

    def page(name: str, seed: int) -> str:
        words = [folder, "--out", tmp_path / name, "--sample", 12, "--sample-seed", seed,
                 "--artifact", tiny_artifact, "--threads", 1]  # fmt: skip
        write_sample(parse_arguments(None, [str(each) for each in words]))
        return (tmp_path / name / PAGE).read_text()

    first = page("a", 1)
    assert first == page("b", 1)
    assert first != page("c", 2)
    ids = re.findall(r"<small>(.*?)</small>", first)
    assert len(set(ids)) == 12
    good = [id_ for id_ in ids if "&lt;b&gt;" in id_]
    assert 0 < len(good) < 12
    assert first.count("data:image/jpeg") == len(good)
    assert first.count("is damaged or cut short") == 12 - len(good)
    assert "12 of 40 pictures" in capsys.readouterr().out
    assert [each.name for each in (tmp_path / "a").iterdir()] == [PAGE]


def test_the_commands_of_the_page_are_understood():
    lines = [line for block in blocks(ROOT / "docs" / "scale.md", "sh") for line in block.lines]
    commands = [shlex.split(line, comments=True) for line in lines if "scale.caption" in line]
    assert len(commands) == 3
    for words in commands:
        assert parse_arguments(None, words[words.index("scale.caption") + 1 :]).out


def test_options_have_the_names_of_requests():
    words = ["photos", "--out", "o", "--num-beams", "3", "--max-new-tokens=9", "--prompt", "a boat"]
    given = parse_arguments(None, words)
    assert given.options == {"num_beams": "3", "max_tokens": "9", "prompt": "a boat"}
    assert given.extras == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--out"),
        (["--out", "o"], "INPUT"),
        (["a", "--out", "o", "--workers", "0"], "whole number above 0"),
        (["a", "--out", "o", "--unit-features"], "--unit-features needs --features"),
        (["a", "--out", "o", "--sample", "3", "--address", "x:1"], "leave out --address"),
        (["a", "--out", "o", "--beams", "3"], "--beams"),
        (["a", "--out", "o", "--gpus-per-worker", "2"], "part of a GPU, from 0 to 1"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(None, words)
    assert message in capsys.readouterr().err
