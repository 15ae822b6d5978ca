"""Which files of the page are served, and where."""

from __future__ import annotations

from pathlib import Path

from gateway.routes.page_files import page_files


def test_each_file_has_its_own_path_and_the_index_is_the_root(tmp_path: Path):
    for name in ("index.html", "page.css", "page.js", "notes.txt", "secret.py"):
        (tmp_path / name).write_text("")
    assert page_files(tmp_path) == {
        "/": tmp_path / "index.html",
        "/page.css": tmp_path / "page.css",
        "/page.js": tmp_path / "page.js",
    }
    assert page_files(tmp_path / "nothing") == {}
