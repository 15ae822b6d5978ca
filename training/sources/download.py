"""Downloads large files over HTTP, and resumes a download that was interrupted.

    FILE             the complete file, its SHA-256 checked
    FILE.part        the bytes received so far
    FILE.part.json   the version of the remote file that these bytes are the beginning of

The process may be killed at any time: the next one requests the bytes that are missing (range
requests: RFC 9110, section 14). Not the library `pooch`: it cannot resume, and starts a file of
13 GB from its beginning each time the connection is lost.
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
TIMEOUT = 60
#: Seconds to wait before each new try. Any received byte starts the list again; after the last
#: delay the download fails.
RETRY_DELAYS = (1, 2, 4, 8, 16, 32)
#: Statuses of errors that usually pass: the request is sent again.
RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)

# Errors of a connection. A full disk raises OSError, which is not among them.
_CONNECTION_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.HTTPException,
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A remote file in one version.

    Attributes:
        url: Its address.
        size: In bytes.
        version: The server's ETag, or else the time of the last change; None if it sends neither.
    """

    url: str
    size: int
    version: str | None


def look_up(url: str) -> RemoteFile:
    """Ask the server for the size and version of a file.

    Raises:
        Refusal: There is no such file, the server does not answer after several tries, or it does
            not send a size.
    """

    def ask() -> RemoteFile:
        with _open(url, "HEAD") as response:
            return _remote_file(url, response.headers, response.headers.get("Content-Length"))

    return _with_retries(ask, url, lambda: 0)


def download(
    remote: RemoteFile, file: Path, sha256: str | None, progress: Callable[[int], object]
) -> None:
    """Download a file, or the part of it that is missing.

    Args:
        remote: What `look_up` returned.
        file: Where to write it; the folder is created.
        sha256: The expected SHA-256 in hex; None checks the size alone.
        progress: Called with the number of bytes received so far.

    Raises:
        Refusal: No connection after several tries, or the file is not the expected one.
        OSError: The disk is full, or the folder cannot be written to.
    """
    part, state = _part(file), file.with_name(file.name + ".part.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    if downloaded_bytes(remote, file) == 0:  # nothing, or the beginning of another version
        part.unlink(missing_ok=True)
        temporary = state.with_suffix(".new")
        temporary.write_text(json.dumps(dataclasses.asdict(remote)))
        temporary.replace(state)
        part.touch()

    def fetch() -> None:
        _fetch_rest(remote, part, progress)

    _with_retries(fetch, remote.url, lambda: part.stat().st_size)
    if sha256 is not None and (found := file_sha256(part)) != sha256.lower():
        part.unlink()
        raise Refusal(
            f"{remote.url} has SHA-256 {found}, the settings have {sha256}; it was damaged in the "
            "transfer or is another file: run the command again, or correct the setting"
        )
    part.rename(file)
    state.unlink()


def downloaded_bytes(remote: RemoteFile, file: Path) -> int:
    """Bytes of this version of the file that an earlier, interrupted download has written."""
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


def _fetch_rest(remote: RemoteFile, part: Path, progress: Callable[[int], object]) -> None:
    """Append the missing bytes to `part` in one request.

    Raises:
        Refusal: The remote file changed.
        OSError: The connection was lost (an error of `_CONNECTION_ERRORS`), or writing failed.
    """
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
        else:  # the first request, or a server without ranges: the file comes from its beginning
            size = response.headers.get("Content-Length")
        if _remote_file(remote.url, response.headers, size) != remote:
            raise Refusal(f"{remote.url} changed during the download; run the command again")
        with part.open("ab" if resumed else "wb") as content:
            # read1 returns what has arrived, so those bytes are kept if the connection is lost.
            while chunk := response.read1(CHUNK):
                content.write(chunk)
                progress(content.tell())
    if (size := part.stat().st_size) != remote.size:
        raise ConnectionError(f"the connection ended at {size} of {remote.size} bytes")


def _with_retries(act: Callable[[], T], url: str, size: Callable[[], int]) -> T:
    """Call `act`, and call it again after a connection error.

    Args:
        act: One request.
        url: For messages.
        size: Gives the number of bytes received so far. While it grows there is no limit of tries.

    Raises:
        Refusal: A wrong address, or as many tries as `RETRY_DELAYS` allows without a new byte.
    """
    tries, before = 0, size()
    while True:
        try:
            return act()
        except urllib.error.HTTPError as error:
            reason = " ".join(f"{error.code} {error.reason}".split())
            if error.code not in RETRIED_STATUSES:
                raise Refusal(f"{url} answers {reason}; correct the address") from None
        except (http.client.InvalidURL, ValueError) as error:  # the address, or one redirected to
            raise Refusal(f"{url!r} is, or leads to, no address: {error}") from None
        except _CONNECTION_ERRORS as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        now = size()
        tries = 0 if now > before else tries
        before = now
        if tries == len(RETRY_DELAYS):
            raise Refusal(
                f"{url} gave nothing in {tries + 1} tries ({reason}); {gigabytes(now)} are here, "
                "run the command again to go on from there"
            )
        print(f"{url}: {reason}; trying again in {RETRY_DELAYS[tries]} s", file=sys.stderr)
        time.sleep(RETRY_DELAYS[tries])
        tries += 1


def _open(url: str, method: str, headers: Mapping[str, str] | None = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Refusal(f"{url} cannot be fetched; it must begin with http:// or https://")
    sent = {"User-Agent": "clipcap", **(headers or {})}
    request = urllib.request.Request(url, method=method, headers=sent)
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _remote_file(url: str, headers: Any, size: str | None) -> RemoteFile:
    if size is None or not size.isdecimal() or len(size) > 18:
        raise Refusal(f"{url} comes without its size; take it from a server that sends it")
    return RemoteFile(url, int(size), headers.get("ETag") or headers.get("Last-Modified"))


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")
