"""A folder is there whole or not at all: written aside, put in place at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.refusal import Refusal


@contextmanager
def whole_folder(target: str | Path, *marks: str) -> Iterator[Path]:
    """An empty folder to write into, which replaces `target` when the block ends well.

    When the block fails, `target` stays as it was and nothing is left beside it. A killed process
    leaves `target.partial`, which the next one clears away.

    Args:
        target: The folder.
        marks: Files that an older folder of the same kind has, one of them at least.

    Raises:
        Refusal: `target` holds something else.
    """
    target = Path(target)
    check_replaceable(target, *marks)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
