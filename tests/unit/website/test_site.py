"""docs/ becomes a site: every link and anchor leads somewhere, and no other server is asked."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from website import mermaid

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="the extra docs is not installed"
)


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository, as `make docs` does."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with the site's files and two pages."""
    for name in ("mkdocs.yml", "website", "CHANGELOG.md", "model"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "mkdocs.yml").read_text()
    nav = "nav: [index.md, other.md, changelog.md]\n"
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"nav:\n(?:  .*\n)+", nav, text))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n")
    (tmp_path / "docs" / "other.md").write_text("# Another\n\n## Below\n")
    return tmp_path


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[x](none.md)", "'none.md'"),
        ("[x](other.md#nowhere)", "anchor '#nowhere'"),
        ("[x](#nowhere)", "#nowhere"),
        ("[x](../deploy/none.yaml)", "none.yaml"),
        ("![x](none.png)", "none.png"),
    ],
)
def test_a_link_that_leads_nowhere_ends_the_build(small: Path, link: str, said: str):
    (small / "docs" / "index.md").write_text(f"# A page\n\n{link}\n")
    done = build(small, small / "out")
    assert done.returncode == 1
    assert said in done.stderr


def test_a_page_that_is_not_in_the_navigation_ends_the_build(small: Path):
    (small / "docs" / "lost.md").write_text("# Lost\n")
    done = build(small, small / "out")
    assert done.returncode == 1
    assert "lost.md" in done.stderr


def test_a_linked_file_of_the_repository_is_carried_along(small: Path):
    (small / "docs" / "index.md").write_text(
        "# A\n\n[x](../model/refusal.py) [y](other.md#below)\n"
    )
    assert build(small, small / "out").returncode == 0
    assert 'href="repository/model/refusal.py"' in (small / "out" / "index.html").read_text()
    copied = small / "out" / "repository" / "model" / "refusal.py"
    assert copied.read_bytes() == (ROOT / "model" / "refusal.py").read_bytes()


def test_the_changes_are_a_page(site: Path):
    assert "Keep a Changelog" in (site / "changelog.html").read_text()


def test_no_page_asks_another_server(site: Path):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="(https?:[^"]+)"',
                            page.read_text())  # fmt: skip
        assert not loaded, page.name


def test_pages_with_a_diagram_have_the_script(site: Path):
    page = (site / "architecture.html").read_text()
    if not mermaid.FILE.is_file():
        pytest.skip("python -m website.mermaid has not fetched the script")
    assert '<script src="assets/mermaid.min.js"></script></head>' in page
    assert (site / "assets" / "mermaid.min.js").is_file()
    assert "mermaid.min.js" not in (site / "api.html").read_text()


def test_another_script_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """npm packs a package of the same name and version whose script differs."""
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\nmkdir -p package/dist && echo other > package/dist/mermaid.min.js\n"
        f'tar czf "$4/mermaid-{mermaid.VERSION}.tgz" package\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(mermaid.Refusal, match="do not use it"):
        mermaid.fetch(tmp_path / "out.js")
    assert not (tmp_path / "out.js").exists()


CHROMIUM = Path("/usr/bin/chromium")


@pytest.mark.skipif(not CHROMIUM.is_file(), reason="Debian's chromium is not installed")
def test_every_diagram_can_be_drawn(site: Path):
    if not mermaid.FILE.is_file():
        pytest.skip("python -m website.mermaid has not fetched the script")
    sync_api = pytest.importorskip("playwright.sync_api")
    texts = [
        text
        for page in sorted((ROOT / "docs").rglob("*.md"))
        for text in re.findall(r"```mermaid\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(texts) > 5
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=str(mermaid.FILE))
        for text in texts:
            page.evaluate("text => mermaid.parse(text)", text)  # raises, with the line
        browser.close()
