"""A folder is there whole or not at all: written aside, put in place at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from model.locked_folder import locked, remove_locked
from model.refusal import Refusal


@contextmanager
def whole_folder(target: str | Path, *marks: str) -> Iterator[Path]:
    """An empty folder to write into, which replaces `target` when the block ends well.

    When the block fails, `target` stays as it was and nothing is left beside it. A killed process
    leaves `target.partial`, perhaps with the older folder in it: the next one puts that back and
    clears the rest away.

    Args:
        target: The folder.
        marks: Files that an older folder of the same kind has, one of them at least.

    Raises:
        Refusal: `target` holds something else, or another process is about to replace it.
    """
    target = Path(os.path.realpath(target))  # what a link leads to, not the link, is replaced
    partial = target.with_name(target.name + ".partial")
    new, old = partial / "new", partial / "old"
    with closing(locked(partial)):
        try:
            _put_back(old, target)
            check_replaceable(target, *marks)
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            yield new
            if target.exists():
                target.rename(old)
            new.rename(target)
        finally:
            _put_back(old, target)
            remove_locked(partial)


def _put_back(old: Path, target: Path) -> None:
    """Put the older folder back if nothing took its place, or else remove it."""
    if old.exists() and not target.exists():
        old.rename(target)
    elif old.exists():
        shutil.rmtree(old)


def check_replaceable(target: Path, *marks: str) -> None:
    """Refuse a folder that would be lost, unless it is empty or of the kind that replaces it.

    Args:
        target: The folder; there may be none.
        marks: Files or folders in it, one of which says that it is of that kind.

    Raises:
        Refusal: It holds something else.
    """
    known = any((target / name).exists() for name in marks)
    if target.exists() and not known and (not target.is_dir() or any(target.iterdir())):
        raise Refusal(
            f"{target} holds something else (no {' or '.join(marks)}), which would be lost; "
            "give another folder"
        )
