"""The folder of captures: whole files appear in it, and old ones leave.

A file is written under another name, synchronised with the disk and then renamed. So whoever lists
the folder sees whole files only, also after the process was killed or the machine lost its power.
The names begin with the time, so that they sort by age, and no two workers use the same one.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

#: Beginnings of the names: of files of rows, of files of pictures, and of unfinished ones.
ROWS, IMAGES, UNFINISHED = "capture-", "images-", ".unfinished-"
#: Seconds after which an unfinished file is one that its process has left behind.
LEFT_BEHIND = 3600.0


class CaptureFolder:
    """Writes files of one worker and keeps the folder within its limits.

    Args:
        folder: Made if there is none.
        max_bytes: Most bytes of all files.
        days: Days after which a file of rows is removed.
        image_days: Days after which a file of pictures is removed.

    Raises:
        OSError: The folder cannot be made, or not be written.
    """

    def __init__(self, folder: Path, max_bytes: int, days: float, image_days: float) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._days = {ROWS: days, IMAGES: image_days}
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f"{UNFINISHED}{os.getpid()}-trial"
        trial.write_bytes(b"")
        trial.unlink()
        self.remove_old()

    def write(self, parquet: Any, table: pyarrow.Table, kind: str = ROWS) -> Path:
        """Write one file; when this returns, it is whole and on the disk.

        Args:
            parquet: The module `pyarrow.parquet`.
            table: Its content.
            kind: `ROWS` or `IMAGES`.

        Raises:
            OSError: It cannot be written, such as on a full disk.
        """
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._number += 1
        name = f"{kind}{now}-{os.getpid()}-{self._number}.parquet"
        aside = self.folder / f"{UNFINISHED}{name}"
        try:
            with aside.open("wb") as file:
                parquet.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            self.remove_old(aside.stat().st_size)
            aside.rename(self.folder / name)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self.folder / name

    def remove_old(self, more: int = 0) -> None:
        """Remove what is too old, and the oldest files until the others fit.

        Several workers may do this at once; a file that is gone already is no error.

        Args:
            more: Bytes that are about to come.
        """
        files: list[tuple[str, Path, int]] = []
        now = time.time()
        for file in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                facts = file.stat()
                age = now - facts.st_mtime
                kind = next((each for each in self._days if file.name.startswith(each)), None)
                if kind is not None and age <= self._days[kind] * 86400:
                    files.append((file.name[len(kind) :], file, facts.st_size))
                elif kind is not None or (file.name.startswith(UNFINISHED) and age > LEFT_BEHIND):
                    file.unlink()
        files.sort()
        total = more + sum(size for _, _, size in files)
        for _, file, size in files:
            if total <= self._max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size
