"""Every command on a page is run by a test, or says why not; what is named by the way exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests import ROOT
from tests.page_blocks import MARK, PAGES, RUNNABLE, Block, blocks
from training.config import load_config

BLOCKS = [block for page in PAGES for block in blocks(page) if block.language in RUNNABLE]
TARGETS = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SETTING = re.compile(
    r"(prepare|scenes|folder|webdataset|coco|features|train|quality|evaluate|clip|loggers|export)"
    r"\.[a-z0-9_.]+=|experiment=[a-z-]+$"
)
#: Placeholders and words of sweeps, which are no values.
NO_VALUE = re.compile(r"[A-Z]{3,}|…|\(|\d,\d|^train\.trainer\.\*")


def of_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def inline(page: Path) -> str:
    """What stands between single backticks, and the shell blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    shell = [line for block in blocks(page, "sh") for line in block.lines]
    return " \n".join([*re.findall(r"`([^`\n]+)`", text), *shell])


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page.stem}: {b.text[:40]!r}")
def test_a_block_is_run_by_a_test_or_says_why_not(block: Block):
    assert block.run_by or len(block.reason) > 10, "put a mark above it: tests/page_blocks.py"
    for name in re.findall(r"tests/\S+\.py|tests/[\w/]+", f"{block.run_by} {block.reason}"):
        assert (ROOT / name).exists(), name
    if block.run_by:
        runner = (ROOT / block.run_by).read_text()
        reads_it = block.page.name in runner
        assert reads_it or all(line in runner for line in block.lines), block.run_by


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_a_mark_stands_where_it_is_read(page: Path):
    text = page.read_text()
    marks = len(MARK.findall(re.sub(r"^    .*$", "", text, flags=re.MULTILINE)))
    above = len(re.findall(r"^<!-- (?:run|not run): .+? -->\n```(?:sh|python)$", text, re.M))
    head = bool(MARK.fullmatch(text.partition("\n\n")[2].partition("\n")[0]))
    assert marks == above + head


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_commands_stand_in_blocks_for_a_shell(page: Path):
    """A block by indentation, or of another language, would escape the marks."""
    begins = r"\.venv/bin/|make [a-z]|docker |curl |kubectl |gcloud |pip |python -m |\$ "
    assert not re.findall(rf"^    (?:{begins}).*", page.read_text(), re.MULTILINE)
    others = {block.language for block in blocks(page)} - {*RUNNABLE}
    assert others <= {"json", "yaml", "toml", "properties", "mermaid"}


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_make_target_and_module_exists(page: Path):
    text = inline(page)
    assert set(re.findall(r"(?:^|[ `])make ([a-z]+)", text)) <= TARGETS
    for module in set(re.findall(r"python3? -m ([a-z_.]+)", text)) - {"venv", "pip", "pytest"}:
        assert importlib.util.find_spec(module.strip(".")) or module == "mkdocs", module
    for names in re.findall(r"\.\[([\w,]+)\]'", text):
        assert set(names.split(",")) <= EXTRAS.keys()


def settings_of(page: Path) -> set[str]:
    """The words `key=value` of a page, placeholders left out."""
    words = []
    for line in inline(page).splitlines():
        try:
            words += shlex.split(line, comments=True)
        except ValueError:  # prose with an apostrophe
            continue
    given = {word.lstrip("+") for word in words if SETTING.match(word.lstrip("+"))}
    return {word for word in given if not NO_VALUE.search(word) and "trainer." not in word}


def test_every_setting_is_a_setting():
    """Each is given once to what reads settings, together with those of other names: it is slow."""
    # test_data_sets of test_pages.py runs every setting of that page.
    waiting = set().union(*(settings_of(page) for page in PAGES if page.stem != "data-sets"))
    assert len(waiting) > 50
    while waiting:
        together = {word.partition("=")[0]: word for word in sorted(waiting)}
        load_config(list(together.values()))
        waiting -= set(together.values())


def test_every_page_is_in_the_navigation_of_the_site():
    named = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[:-1]}
    assert named == pages | {"changelog.md"}  # which is CHANGELOG.md


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_lead_to_files(page: Path):
    """Anchors too: test_site.py."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for name in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        if name != "changelog.md":
            assert (page.parent / name).exists(), name
    for name in re.findall(r"`((?:training|tests|benchmarks|model|gateway)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


def test_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60
