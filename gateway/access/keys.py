"""API keys: a file of their hashes, and the check of a request's key.

A key holds 256 random bits. So one round of SHA-256 protects it: no dictionary holds it, and trying
all keys is out of reach.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.settings import SettingsError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,40}) ([0-9a-f]{64})(?: ([0-9]{1,9}(?:\.[0-9]{1,9})?))?")


@dataclasses.dataclass(frozen=True)
class Key:
    """Whom a key is for.

    Attributes:
        name: Of a person or program.
        rate: Pictures a second that it may send; 0 for no limit, None for the gateway's own.
    """

    name: str
    rate: float | None = None


def read_keys(file: Path) -> dict[str, Key]:
    """The keys of a file.

    Args:
        file: A line for each key: a name, the SHA-256 of the key in hexadecimal digits, and
            perhaps the pictures that it may send in a second. Empty lines and lines that begin
            with # are ignored.

    Returns:
        Hash -> whom the key is for.

    Raises:
        SettingsError: The file cannot be read, holds no key, or has a line of another form.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"GATEWAY_KEYS: {file} cannot be read: {error}") from None
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (found := _LINE.fullmatch(line.strip())):
            raise SettingsError(
                f"GATEWAY_KEYS: {file}, line {number} is not a name, a hash and perhaps a rate; "
                "python -m gateway.key writes such lines"
            )
        rate = found.group(3)
        keys[found.group(2)] = Key(found.group(1), float(rate) if rate else None)
    if not keys:
        raise SettingsError(f"GATEWAY_KEYS: {file} holds no key; python -m gateway.key makes one")
    return keys


def add_key(file: Path, name: str, rate: float | None = None) -> str:
    """Make a key and add its hash to a file, which is created if there is none.

    Args:
        file: The file; only its owner may read it.
        name: Of the person or program that the key is for.
        rate: Pictures a second that it may send; 0 for no limit, None for the gateway's own.

    Returns:
        The key. It is written nowhere.

    Raises:
        SettingsError: The name or the rate cannot be used, the name is taken, or the file is not
            one of keys.
        OSError: The file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"the name is {name[:50]!r}; it must be 1 to 40 letters, digits, dots, - and _"
        )
    if rate is not None and not 0 <= rate < 1e9:
        raise SettingsError(f"the rate is {rate}; it must be a number of pictures a second from 0")
    if file.exists() and name in {key.name for key in read_keys(file).values()}:
        raise SettingsError(f"{file} has a key called {name} already; take another name")
    key = secrets.token_urlsafe(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a") as out:
        limit = "" if rate is None else f" {rate:.9f}".rstrip("0").rstrip(".")
        out.write(f"{name} {hash_of(key)}{limit}\n")
    return key


def hash_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def find_key(headers: Mapping[str, str], keys: Mapping[str, Key]) -> Key | None:
    """The key that a request carries; None if it carries none of these.

    Args:
        headers: With names in lower case. The key is in `Authorization: Bearer KEY` or `X-API-Key`.
        keys: Hash -> whom the key is for.
    """
    kind, _, token = headers.get("authorization", "").partition(" ")
    given = [headers.get("x-api-key", "")]
    if kind.lower() == "bearer":
        given.append(token.strip())
    # The hashes are compared, so the time that it takes tells nothing about a key.
    found = (keys.get(hash_of(key)) for key in given if key)
    return next((key for key in found if key), None)
