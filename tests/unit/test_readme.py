"""README tells the truth: its JSON is ours, and the first page names every option.

Its commands, links and settings are held by test_commands.py, with those of the pages.
"""

from __future__ import annotations

import json
import re

from model.options import OPTIONS
from tests import ROOT

README = (ROOT / "README.md").read_text()
FIRST = (ROOT / "docs" / "first-caption.md").read_text()


def test_options_named_are_the_options_there_are():
    listed = FIRST.partition("same names everywhere:")[2].partition(", as")[0]
    assert set(re.findall(r"`([a-z_]+)`", listed)) == set(OPTIONS)


def test_the_json_shown_has_the_fields_of_a_reply():
    texts = [re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0] for page in (README, FIRST)]
    assert texts[0] == texts[1]
    shown = json.loads(texts[0])
    assert shown.keys() == {"caption", "confidence", "quality", "captions", "model"}
    assert shown["captions"][0].keys() == {
        *("caption", "confidence", "quality", "log_prob", "tokens", "finish_reason")
    }
