"""Large files over HTTP: with progress, resumed where they were cut, checked before they count.

    FILE             the whole file, checked
    FILE.part        what has come so far
    FILE.part.json   which version of the remote file that is the beginning of

A process may be killed at any point; the next one goes on (RFC 9110, section 14: range requests).
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from model.refusal import Refusal
from training.sources.disk_space import gigabytes

CHUNK = 1 << 20  # bytes
#: Seconds without a byte after which a connection counts as lost.
SILENCE = 60
#: Seconds before each new try when nothing came since the last one; then the download is given up.
WAITS = (1, 2, 4, 8, 16, 32)
#: What servers answer that are expected to be well again soon.
PASSING = (408, 429, 500, 502, 503, 504)

# How a connection ends early. A full disk is an OSError too, and none of these.
_LOST = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.HTTPException,
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Remote:
    """A version of a remote file.

    Attributes:
        url: Where it is.
        size: Bytes.
        mark: What the server tells versions apart by: its ETag, else the time of the last change.
    """

    url: str
    size: int
    mark: str | None


def look_up(url: str) -> Remote:
    """Ask the server for a file's size and version.

    Raises:
        Refusal: No such file, no answer after several tries, or no size.
    """

    def ask() -> Remote:
        with _open(url, "HEAD") as response:
            return _remote(url, response.headers, response.headers.get("Content-Length"))

    return _patiently(ask, url, lambda: 0)


def download(
    remote: Remote, file: Path, sha256: str | None, progress: Callable[[int], object]
) -> None:
    """Fetch a file, or the rest of it.

    Args:
        remote: What `look_up` found.
        file: Where it goes; its folder is made.
        sha256: What the file must have, in hex; None checks the size alone.
        progress: Told how many bytes there are so far.

    Raises:
        Refusal: No connection after several tries, or another file than was meant.
    """
    part, state = _part(file), file.with_name(file.name + ".part.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    if bytes_at_hand(remote, file) == 0:  # nothing yet, or the beginning of another version
        part.unlink(missing_ok=True)
        aside = state.with_suffix(".new")
        aside.write_text(json.dumps(dataclasses.asdict(remote)))
        aside.replace(state)
        part.touch()

    _patiently(lambda: _fetch_rest(remote, part, progress), remote.url, lambda: part.stat().st_size)
    if sha256 is not None and (found := file_sha256(part)) != sha256.lower():
        part.unlink()
        raise Refusal(
            f"{remote.url} has SHA-256 {found}, the settings say {sha256}; it was damaged on the "
            "way or is another file: run the command again, or correct the setting"
        )
    part.rename(file)
    state.unlink()


def bytes_at_hand(remote: Remote, file: Path) -> int:
    """How much of this version of the file an earlier download has left."""
    state = file.with_name(file.name + ".part.json")
    try:
        size = _part(file).stat().st_size
        known = json.loads(state.read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return size if known == dataclasses.asdict(remote) and size <= remote.size else 0


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _fetch_rest(remote: Remote, part: Path, progress: Callable[[int], object]) -> None:
    """Append what is missing; the connection may be lost in the middle of it."""
    start = part.stat().st_size
    progress(start)
    if start == remote.size:
        return
    wanted = {"Range": f"bytes={start}-"} if start else {}
    with _open(remote.url, "GET", wanted) as response:
        resumed = response.status == 206
        if resumed:
            began, _, size = response.headers.get("Content-Range", "").rpartition("/")
            if not began.startswith(f"bytes {start}-"):
                raise ConnectionError(f"asked for bytes from {start}, the server sends {began!r}")
        else:  # the first request, or a server that knows no ranges: it comes from the beginning
            size = response.headers.get("Content-Length")
        now = _remote(remote.url, response.headers, size)
        if now != remote:
            raise Refusal(f"{remote.url} changed during the download; run the command again")
        with part.open("ab" if resumed else "wb") as content:
            while chunk := response.read1(CHUNK):  # whatever came, before the line is lost
                content.write(chunk)
                progress(content.tell())
    if (size := part.stat().st_size) != remote.size:
        raise ConnectionError(f"the connection ended at {size} of {remote.size} bytes")


def _patiently(act: Callable[[], T], url: str, size: Callable[[], int]) -> T:
    """Do it, again and again while connections are lost; gives up when nothing more comes."""
    tries, before = 0, size()
    while True:
        try:
            return act()
        except urllib.error.HTTPError as error:
            reason = " ".join(f"{error.code} {error.reason}".split())
            if error.code not in PASSING:
                raise Refusal(f"{url} answers {reason}; correct the address") from None
        except (http.client.InvalidURL, ValueError) as error:  # of the file or of a redirect
            raise Refusal(f"{url!r} is, or leads to, no address: {error}") from None
        except _LOST as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        now = size()
        tries = 0 if now > before else tries
        before = now
        if tries == len(WAITS):
            raise Refusal(
                f"{url} gave nothing in {tries + 1} tries ({reason}); {gigabytes(now)} are here, "
                "run the command again to go on from there"
            )
        print(f"{url}: {reason}; trying again in {WAITS[tries]} s", file=sys.stderr)
        time.sleep(WAITS[tries])
        tries += 1


def _open(url: str, method: str, headers: Mapping[str, str] | None = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Refusal(f"{url} cannot be fetched; it must begin with http:// or https://")
    words = {"User-Agent": "clipcap", **(headers or {})}
    request = urllib.request.Request(url, method=method, headers=words)
    return urllib.request.urlopen(request, timeout=SILENCE)


def _remote(url: str, headers: Any, size: str | None) -> Remote:
    if size is None or not size.isdecimal() or len(size) > 18:
        raise Refusal(f"{url} comes without its size; take it from a server that tells it")
    return Remote(url, int(size), headers.get("ETag") or headers.get("Last-Modified"))


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")
