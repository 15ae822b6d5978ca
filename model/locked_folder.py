"""A folder that one process works in at a time.

The lock is the kernel's and ends with its process, however that ends. Child processes do not
inherit it: workers that outlive a killed run by seconds must not keep the next one out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from model.refusal import Refusal

#: The file in the folder that is locked; it holds the process id of whoever did.
LOCK = "lock"
#: Times in a row that other runs may take the folder along: after these it is something else.
TRIES = 100


def locked(folder: Path) -> TextIO:
    """Make a folder, if there is none, for this process alone until it closes the file or ends.

    Raises:
        Refusal: Another process works there, or it holds what none of them left.
    """
    tries = 0
    while True:
        if _holds_something_else(folder):
            raise Refusal(
                f"{folder} is where this command works before it is done, and holds something "
                "else, which would be lost; move it away"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+")
        except (FileNotFoundError, FileExistsError):
            if os.path.lexists(folder) and not folder.is_dir():
                raise Refusal(f"{folder} is in the way of this command; move it") from None
            tries += 1
            if tries == TRIES:
                raise
            continue  # a run ended just now and took its folder along
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
        file.close()  # a run ended just now, with the file locked here


def remove_locked(folder: Path) -> None:
    """Remove a folder that this process has locked, the lock last: nobody begins there before."""
    _clear(folder)
    (folder / LOCK).unlink()
    with contextlib.suppress(OSError):  # somebody has begun there by now
        folder.rmdir()


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for this process alone, which is gone when the block ends.

    What a killed run left in it is cleared away first.

    Raises:
        Refusal: As of `locked`.
    """
    with contextlib.closing(locked(folder)):
        try:
            _clear(folder)
            yield folder
        finally:
            remove_locked(folder)


def _holds_something_else(folder: Path) -> bool:
    """Whether there is something in it and no lock, which comes first there and goes last."""
    try:
        names = {each.name for each in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(names) and LOCK not in names


def _clear(folder: Path) -> None:
    """Remove everything in it but the lock."""
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        elif each.name != LOCK:
            each.unlink()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
