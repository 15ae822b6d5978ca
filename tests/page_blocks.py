"""The blocks of commands on the pages, each with the mark that says which test runs it.

A mark is a comment above the block, or below the page's title for all its blocks:

    <!-- run: tests/unit/test_pages.py -->       that file reads the page and runs the lines
    <!-- not run: needs a cluster -->            why no test does
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from tests import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
#: Languages whose blocks are commands or programs.
RUNNABLE = ("sh", "python")
MARK = re.compile(r"<!-- (run|not run): (.+?) -->")
BLOCK = re.compile(r"(?:^<!-- (run|not run): ([^\n]+?) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        page: The file.
        language: The word behind the three backticks.
        text: Its lines.
        run_by: The file of the test that runs it; empty if none does.
        reason: Why none does; empty if one does, or if no mark says.
    """

    page: Path
    language: str
    text: str
    run_by: str = ""
    reason: str = ""

    @property
    def lines(self) -> list[str]:
        """The commands: continued lines are joined, comments and empty lines left out."""
        joined = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in joined if line.strip() and not line.startswith("#")]


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page; of one language, or all."""
    text = page.read_text()
    head = MARK.fullmatch(text.partition("\n\n")[2].partition("\n")[0])
    found = []
    for kind, words, name, lines in BLOCK.findall(text):
        if not kind and head:
            kind, words = head[1], head[2]
        marks = {"run": {"run_by": words}, "not run": {"reason": words}}
        found.append(Block(page, name, lines, **marks.get(kind, {})))
    return [block for block in found if language in (None, block.language)]


def commands(page: Path, runner: str) -> list[list[str]]:
    """The words of every line of the page's shell blocks that a test runs.

    Args:
        page: The file.
        runner: The file of the test, as the marks name it.
    """
    return [
        shlex.split(line, comments=True)
        for block in blocks(page, "sh")
        if block.run_by == runner
        for line in block.lines
    ]
