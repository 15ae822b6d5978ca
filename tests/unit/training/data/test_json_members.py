"""A JSON object read member by member equals what `json` reads, wherever its chunks end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.refusal import Refusal
from training.data.json_members import members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda own: st.lists(own, max_size=4) | st.dictionaries(st.text(max_size=4), own, max_size=4),
    max_leaves=8,
)


def read_all(file: Path, chunk: int) -> dict[str, Any]:
    found = {}
    for name, value in members(file, chunk):
        found[name] = list(value) if isinstance(value, Iterator) else value
    return found


@settings(deadline=None, max_examples=40)
@given(
    content=st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_members_are_what_json_load_reads(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
):
    file = tmp_path_factory.getbasetemp() / "members.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert read_all(file, chunk) == content


def test_a_list_that_is_not_used_is_skipped(tmp_path: Path):
    file = tmp_path / "some.json"
    file.write_text('{"many": [1, [2], {"three": 3}], "few": 12.5e1}')
    assert [name for name, _ in members(file, 2)] == ["many", "few"]


@pytest.mark.parametrize(
    "damaged",
    ["{", '{"a"', '{"a": [1, 2', '{"a": [1 2]}', '{"a": [1,]}', '{"a": 1,}', '{"a": tru}'],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_what_is_not_json_is_refused(tmp_path: Path, damaged: str, chunk: int):
    file = tmp_path / "some.json"
    file.write_text(damaged)
    with pytest.raises(Refusal, match=r"some.json is not JSON: .*, after character \d+$"):
        read_all(file, chunk)


def test_the_message_gives_the_position_of_the_wrong_character(tmp_path: Path):
    file = tmp_path / "some.json"
    text = '{"a": [10, 11, 12], "b": [20, oh]}'
    file.write_text(text)
    with pytest.raises(Refusal, match=f"Expecting value, after character {text.index('oh')}$"):
        read_all(file, 3)
