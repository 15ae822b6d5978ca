"""A folder on this machine or in a bucket, whose files appear whole or not at all.

A local file is written aside and renamed; an object of a bucket appears when its upload is
complete. So a process that is killed while it writes leaves no half of a file under a final name.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model.refusal import Refusal


class Store:
    """A folder of files.

    Args:
        address: A path, or an address such as `s3://bucket/captions`. It is all that a process
            needs to know to open the same folder.

    Raises:
        Refusal: The address is of a kind that is not known, or its package is not installed.
    """

    def __init__(self, address: str) -> None:
        self.fs, self.root = filesystem(address)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.address = self.root if self.is_local else address

    def path(self, name: str) -> str:
        """The full path of a file, as its file system takes it."""
        return f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: It is not there.
        """
        data: bytes = self.fs.cat_file(self.path(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it, whole."""
        path = self.path(name)
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        aside = Path(path).with_name(f".{uuid.uuid4().hex}.tmp")
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def names(self, folder: str = "") -> set[str]:
        """Names of the files and folders in a folder of the store; none if it is not there.

        Files that were being written when their process was killed are left out.
        """
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder).rstrip("/"), detail=False)
        except FileNotFoundError:
            return set()
        names = {str(each).rstrip("/").rpartition("/")[2] for each in found}
        return {name for name in names if not name.startswith(".")}

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are left out."""
        for name in names:
            try:
                self.fs.rm_file(self.path(name))
            except FileNotFoundError:
                continue


def filesystem(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Raises:
        Refusal: The address is of a kind that is not known, or its package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise Refusal(f"{address} cannot be opened: {error}") from None
    return fs, path
