"""API keys: a file of their hashes, and the check of a request's key.

A key holds 256 random bits. So one round of SHA-256 protects it: no dictionary holds it, and trying
all keys is out of reach.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.settings import SettingsError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,40}) ([0-9a-f]{64})")


def read_keys(file: Path) -> dict[str, str]:
    """The keys of a file.

    Args:
        file: A line for each key: a name and the SHA-256 of the key in hexadecimal digits. Empty
            lines and lines that begin with # are ignored.

    Returns:
        Hash -> name.

    Raises:
        SettingsError: The file cannot be read, holds no key, or has a line of another form.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"GATEWAY_KEYS: {file} cannot be read: {error}") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (found := _LINE.fullmatch(line.strip())):
            raise SettingsError(
                f"GATEWAY_KEYS: {file}, line {number} is not a name and a hash; "
                "python -m gateway.key writes such lines"
            )
        keys[found.group(2)] = found.group(1)
    if not keys:
        raise SettingsError(f"GATEWAY_KEYS: {file} holds no key; python -m gateway.key makes one")
    return keys


def add_key(file: Path, name: str) -> str:
    """Make a key and add its hash to a file, which is created if there is none.

    Args:
        file: The file; only its owner may read it.
        name: Of the person or program that the key is for.

    Returns:
        The key. It is written nowhere.

    Raises:
        SettingsError: The name cannot be used or is taken, or the file is not one of keys.
        OSError: The file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"the name is {name[:50]!r}; it must be 1 to 40 letters, digits, dots, - and _"
        )
    if file.exists() and name in read_keys(file).values():
        raise SettingsError(f"{file} has a key called {name} already; take another name")
    key = secrets.token_urlsafe(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a") as out:
        out.write(f"{name} {hash_of(key)}\n")
    return key


def hash_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def has_key(headers: Mapping[str, str], keys: Mapping[str, str]) -> bool:
    """Whether a request carries one of the keys.

    Args:
        headers: With names in lower case. The key is in `Authorization: Bearer KEY` or `X-API-Key`.
        keys: Hash -> name.
    """
    kind, _, token = headers.get("authorization", "").partition(" ")
    given = [headers.get("x-api-key", "")]
    if kind.lower() == "bearer":
        given.append(token.strip())
    # The hashes are compared, so the time that it takes tells nothing about a key.
    return any(hash_of(key) in keys for key in given if key)
