"""Writes the pages of settings and routes: `python -m website.written_pages`.

A test holds that the pages in docs/ are what this writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from website.configuration import serving_page, training_page
from website.routes import routes_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- written by python -m website.written_pages, from the code; edit the code -->"
PAGES: dict[str, Callable[[], str]] = {
    "configuration-training.md": training_page,
    "configuration-serving.md": serving_page,
    "routes.md": routes_page,
}


def text_of(name: str) -> str:
    """The text of a page, with the note that it is written."""
    title, _, rest = PAGES[name]().partition("\n")
    return f"{title}\n\n{NOTE}\n{rest}\n"


def main() -> None:
    """Write all of them."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for name in PAGES:
        (DOCS / name).write_text(text_of(name))
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
