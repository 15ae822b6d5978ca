"""A folder is there whole or not at all: written aside, put in place at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder to write into, which replaces `target` when the block ends well.

    When the block fails, `target` stays as it was and nothing is left beside it. A killed process
    leaves `target.partial`, which the next one clears away.
    """
    target = Path(target)
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
