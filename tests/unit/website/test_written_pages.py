"""The pages that are written from code are what the code writes now."""

from __future__ import annotations

import dataclasses
import re
import typing

import pytest

from gateway.settings import PREFIX, Settings
from model.options import OPTIONS
from training.config import Config
from website.written_pages import DOCS, PAGES, text_of

#: As they are committed; the first test holds that they are what the code writes.
TRAINING, SERVING, ROUTES = ((DOCS / name).read_text() for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_command_writes(name: str):
    assert (DOCS / name).read_text() == text_of(name), "run python -m website.written_pages"


def keys(kind: type, begin: str) -> set[str]:
    """Every setting of a block, as a user types it."""
    found = set()
    for name, hint in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(hint)
        found |= keys(typing.cast(type, hint), f"{begin}{name}.") if inner else {f"{begin}{name}"}
    return found


def test_every_setting_of_training_has_a_row():
    rows = re.findall(r"^\| `([\w.]+)` \|", TRAINING.partition("## Experiments")[0], re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == keys(Config, "")


def test_every_setting_of_the_gateway_has_a_row_with_its_default_and_a_meaning():
    found = re.findall(r"^\| `(GATEWAY_\w+)` \| (?:`(.*?)`)? ?\| (.+) \|$", SERVING, re.M)
    rows = {name: text for name, text, meaning in found if meaning.endswith(".")}
    assert rows.keys() == {f"{PREFIX}{each.name.upper()}" for each in dataclasses.fields(Settings)}
    for name, text in rows.items():
        assert Settings.from_environment({name: text} if text else {}) == Settings(), name


def test_every_option_has_a_row():
    table = SERVING.partition("## Options of captions")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(OPTIONS)


def test_limits_stand_beside_the_types():
    assert "| `train.epochs` | whole number, at least 1 |" in TRAINING
    assert "| `train.tuning` | full, frozen or lora |" in TRAINING
    assert "| `features.max_pixels` | whole number, at least 1 | `100000000` |" in TRAINING
    assert "| `train.init` | text or null | `null` |" in TRAINING


def test_the_routes_are_those_that_the_gateway_answers():
    for route in ("POST /v1/captions", "POST /v1/chat/completions", "GET /metrics"):
        assert f"| `{route}` |" in ROUTES
    assert re.search(r"`GET /healthz` \|[^|]*\|[^|]*\|  \|", ROUTES)  # needs no key
    assert re.search(r"`POST /v1/captions` \|[^|]*\|[^|]*\| key \|", ROUTES)
