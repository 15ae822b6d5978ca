"""A folder that one process works in at a time.

The lock is the kernel's and ends with its process, however that ends. Child processes do not
inherit it: workers that outlive a killed run by seconds must not keep the next one out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

from model.refusal import Refusal

#: The file in the folder that is locked; it holds the process id of whoever did.
LOCK = "lock"


def locked(folder: Path) -> TextIO:
    """Make a folder, if there is none, for this process alone until it closes the file or ends.

    Raises:
        Refusal: Another process works there.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                raise Refusal(
                    f"another run (process {file.read()}) writes to {folder}; wait until it ends, "
                    "or write to another place"
                ) from None
        if _is_at(file, folder / LOCK):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # a run ended just now and took its folder along, with the file locked here


@contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for this process alone, which is gone when the block ends.

    What a killed run left in it is cleared away first.

    Raises:
        Refusal: Another process works there.
    """
    with closing(locked(folder)):
        try:
            for left in folder.iterdir():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                elif left.name != LOCK:
                    left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
