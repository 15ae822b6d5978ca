"""Folders that are either complete or absent: written aside and put in place at the end.

One process at a time writes a folder. It locks `NAME.partial/lock` with `filelock`: the lock is the
kernel's, so it ends with its process, and child processes do not inherit it. Workers that outlive a
killed run by seconds therefore do not block the next run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from model.refusal import Refusal

#: The locked file of a working folder. It holds the process id of the run that locked it.
LOCK = "lock"
#: Attempts to lock a folder that other runs remove at the same moment, before the error is raised.
ATTEMPTS = 100
#: Listings of a folder that must agree that it holds something else.
LISTINGS = 5


@contextlib.contextmanager
def whole_folder(target: str | Path, *marks: str) -> Iterator[Path]:
    """An empty folder to write into, which replaces `target` when the block ends without an error.

    When the block fails, `target` stays as it was and nothing is left beside it. A killed process
    leaves `target.partial`, perhaps with the older folder in it: the next run puts the older folder
    back and removes the rest.

    Args:
        target: The folder. Where it is a link, the folder that the link points to is replaced.
        marks: Names of files that mark an older folder of the same kind; one of them must be there.

    Raises:
        Refusal: `target` holds something else, or another process is writing it.
    """
    target = Path(os.path.realpath(target))
    partial = target.with_name(target.name + ".partial")
    new, old = partial / "new", partial / "old"
    with locked(partial):
        try:
            _restore(old, target)
            check_replaceable(target, *marks)
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            yield new
            if target.exists():
                target.rename(old)
            new.rename(target)
        finally:
            _restore(old, target)
            remove_locked(partial)


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for this process alone, which is removed when the block ends.

    Files that a killed run left in it are removed first.

    Raises:
        Refusal: As for `locked`.
    """
    with locked(folder):
        try:
            _clear(folder)
            yield folder
        finally:
            remove_locked(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a folder if there is none, and lock it for this process until the block ends.

    Raises:
        Refusal: Another process has locked it, or it holds files that no run of ours left.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    attempts = 0
    while not lock.is_locked:
        if _holds_something_else(folder):
            raise Refusal(
                f"{folder} is where this command works before it is done, and holds something "
                "else, which would be lost; move it away"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (FileNotFoundError, FileExistsError):
            if _is_no_folder(folder):
                raise Refusal(f"{folder} is in the way of this command; move it") from None
            attempts += 1
            if attempts == ATTEMPTS:
                raise
        except Timeout:
            # Without a file, the run that held the lock has ended since.
            with contextlib.suppress(FileNotFoundError):
                process = (folder / LOCK).read_text()
                raise Refusal(
                    f"another run (process {process}) writes to {folder}; wait until it ends, "
                    "or write to another place"
                ) from None
    try:
        (folder / LOCK).write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def remove_locked(folder: Path) -> None:
    """Remove a folder that this process has locked; the lock file last, so that no run enters."""
    _clear(folder)
    (folder / LOCK).unlink()
    with contextlib.suppress(OSError):  # another run has begun in it since
        folder.rmdir()


def check_replaceable(target: Path, *marks: str) -> None:
    """Refuse to replace a folder, unless it is empty or of the kind that is written.

    Args:
        target: The folder; it need not exist.
        marks: Names of files or folders in it, one of which marks that kind.

    Raises:
        Refusal: It holds something else.
    """
    same_kind = any((target / name).exists() for name in marks)
    if target.exists() and not same_kind and (not target.is_dir() or any(target.iterdir())):
        raise Refusal(
            f"{target} holds something else (no {' or '.join(marks)}), which would be lost; "
            "give another folder"
        )


def _restore(old: Path, target: Path) -> None:
    """Move the older folder back if nothing took its place; otherwise remove it."""
    if old.exists() and not target.exists():
        old.rename(target)
    elif old.exists():
        shutil.rmtree(old)


def _is_no_folder(path: Path) -> bool:
    """Whether something else is there; in one look, as other runs remove and create the folder."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not path.is_dir() if stat.S_ISLNK(mode) else not stat.S_ISDIR(mode)


def _holds_something_else(folder: Path) -> bool:
    """Whether it has files and no lock file, which a run creates first and removes last.

    A listing is not atomic: while other runs come and go it may miss their lock file. So several
    listings must agree. Files of filelock's own, beside the lock file for an instant, do not count.
    """
    for _ in range(LISTINGS):
        try:
            names = {each.name for each in folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return False
        if LOCK in names or all(name.startswith(f"{LOCK}.") for name in names):
            return False
        time.sleep(0.01)
    return True


def _clear(folder: Path) -> None:
    """Remove everything in it except the lock file."""
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        elif each.name != LOCK:
            each.unlink(missing_ok=True)  # filelock removes files of its own meanwhile
