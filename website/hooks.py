"""What mkdocs calls while it builds the site (mkdocs.yml names this file).

- Pages link files outside of `docs/`, such as `../deploy/compose.yaml`, which work on GitHub. The
  site carries a copy of each, so that these links work there too; a file that is missing ends the
  build.
- CHANGELOG.md stands at the top of the repository; here it is the page `changelog.md`.
- Pages with a diagram load mermaid from the site itself (see `website.mermaid`).
- The environment variable SITE_URL is the address of the site, for its canonical links.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from website import mermaid

ROOT = Path(__file__).resolve().parent.parent
#: Where the site has the files outside of docs/.
COPIES = "repository"
SCRIPT = "assets/mermaid.min.js"
#: A link of Markdown that leads out of the page's folder.
OUTSIDE = re.compile(r"(\]\()((?:\.\./)+[^)\s#]+)")
DIAGRAM = '<pre class="mermaid">'
log = logging.getLogger("mkdocs.hooks.clipcap")


def on_config(config: MkDocsConfig) -> None:
    """Take the site's address from the environment."""
    config.site_url = os.environ.get("SITE_URL") or config.site_url


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is not in docs/: the changes, files that pages link, and the script for diagrams."""
    files.append(_outside(config, "changelog.md", ROOT / "CHANGELOG.md"))
    linked = {
        path
        for page in files.documentation_pages()
        for _, link in OUTSIDE.findall(page.content_string)
        if (path := _repository_path(page.src_uri, link))
    }
    for path in sorted(linked):
        if (ROOT / path).is_file():
            files.append(_outside(config, f"{COPIES}/{path}", ROOT / path))
    if mermaid.FILE.is_file():
        files.append(_outside(config, SCRIPT, mermaid.FILE))
    else:
        log.info(
            "%s is missing, so readers' browsers load mermaid from unpkg.com; to fetch it: "
            "python -m website.mermaid",
            mermaid.FILE.relative_to(ROOT),
        )


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to files outside of docs/ to their copies; mkdocs warns of those that lack one."""
    folder = posixpath.dirname(page.file.src_uri)

    def turned(found: re.Match[str]) -> str:
        path = _repository_path(page.file.src_uri, found[2])
        return found[1] + (
            posixpath.relpath(f"{COPIES}/{path}", folder or ".") if path else found[2]
        )

    return OUTSIDE.sub(turned, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Load the script on pages with a diagram, before the theme would ask another server for it."""
    if DIAGRAM not in output or not mermaid.FILE.is_file():
        return output
    script = f'<script src="{get_relative_url(SCRIPT, page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)


def _repository_path(page: str, link: str) -> str | None:
    """The path in the repository that a link leads to, or None if it stays in docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def _outside(config: MkDocsConfig, name: str, file: Path) -> File:
    return File.generated(config, name, abs_src_path=str(file))
