"""Files of the Hugging Face hub, in its cache: resumed where they were cut, and checked.

`huggingface_hub` asks the hub, streams and shows progress. Its own download begins anew when its
process ended in the middle, which costs up to 636 MB here. So the beginning of a file is kept in
the cache, beside the whole ones:

    models--OWNER--NAME/blobs/ETAG         a whole file, under the hub's ETag
    models--OWNER--NAME/blobs/ETAG.part    what has come so far

The ETag is the file's SHA-256 (large files), or the SHA-1 that git gives it (small ones). The
library writes blocks of 10 MB: what came after the last whole block is fetched again.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import http.client
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

import filelock
import huggingface_hub
from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers, httpx  # type: ignore[attr-defined]

from model.pretrained.sources import HubFile
from model.refusal import Refusal

SHA1_DIGITS, SHA256_DIGITS = 40, 64


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A file of the hub on this machine.

    Attributes:
        file: Which one.
        path: Where it is, in the hub's cache.
        commit: The commit of its repository that it is from.
        bytes: Its size.
        sha256: Its SHA-256, in hex.
    """

    file: HubFile
    path: Path
    commit: str
    bytes: int
    sha256: str


def fetch(file: HubFile) -> Fetched:
    """A file of the hub, from the cache or else downloaded into it.

    A file in the cache is taken as it is, without asking the hub, and checked again.

    Raises:
        Refusal: No connection, no such file, too little space, or other bytes than expected. What
            has come so far is kept, and the next call goes on from there.
    """
    path = _cached(file) or _download(file)
    blob = path.resolve()
    size, sha256 = path.stat().st_size, file_sha256(path)
    expected = [file.sha256, blob.name if len(blob.name) == SHA256_DIGITS else None]
    for known in expected:
        if known not in (None, sha256):
            raise Refusal(
                f"{file.name} of {file.repo} has SHA-256 {sha256}, but it must be {known}: it is "
                f"damaged, or another file; remove {blob} and run the command again"
            )
    return Fetched(file, path, path.parent.name, size, sha256)


@functools.cache
def is_unreachable(endpoint: str) -> bool:
    """Whether no connection to a hub can be made; tried once in a process.

    A server that answers slowly, or with an error, counts as reachable: the library tries again.

    Args:
        endpoint: Its address, such as `https://huggingface.co`.
    """
    ask = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(ask, timeout=huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT).close()
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:  # the library reports wrong certificates better
        return isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError)
    except (OSError, http.client.HTTPException):  # connected, but the answer is late or no HTTP
        return False
    return False


def _cached(file: HubFile) -> Path | None:
    """The whole file in the cache, if it is there."""
    found = huggingface_hub.try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def _download(file: HubFile) -> Path:
    """The file, whole and checked, from the hub into the cache."""
    shown = f"{file.name} of {file.repo}"
    endpoint = huggingface_hub.constants.ENDPOINT
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise Refusal(
            f"{shown} is not in {cache}, and HF_HUB_OFFLINE forbids fetching it; {_by_hand(file)}"
        )
    if is_unreachable(endpoint):
        raise Refusal(
            f"{shown} is not in {cache}, and {endpoint} cannot be reached; check the network, name "
            f"a mirror with HF_ENDPOINT, or without network: {_by_hand(file)}"
        )
    folder = repo_folder_name(repo_id=file.repo, repo_type="model")
    try:
        remote = get_hf_file_metadata(hf_hub_url(file.repo, file.name, revision=file.revision))
        lock = cache / ".locks" / folder / f"{remote.etag}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=0):
            _download_blob(file, remote, cache / folder / "blobs")
        # The blob is there: this names it, in the layout that every user of the cache reads.
        return Path(hf_hub_download(file.repo, file.name, revision=file.revision))
    except filelock.Timeout:
        raise Refusal(f"another process is downloading {shown}; wait until it ends") from None
    except HfHubHTTPError as error:
        raise Refusal(_answered(shown, error)) from None
    except httpx.HTTPError as error:
        raise Refusal(f"{endpoint} gives no answer about {shown}: {_reason(error)}") from None


def _download_blob(file: HubFile, remote: HfFileMetadata, blobs: Path) -> None:
    """Fetch the file, or the rest of it, and put it among the whole ones when it is right."""
    shown = f"{file.name} of {file.repo}"
    etag, size, commit = remote.etag, remote.size, remote.commit_hash
    if etag is None or size is None or commit is None:
        raise Refusal(
            f"{remote.location} comes without ETag, size or X-Repo-Commit, which every Hugging "
            "Face hub sends; correct HF_ENDPOINT"
        )
    whole, part = blobs / etag, blobs / f"{etag}.part"
    if whole.exists():
        return
    blobs.mkdir(parents=True, exist_ok=True)
    begun = part.stat().st_size if part.exists() else 0
    if begun > size:  # the hash names one content: these bytes are not its beginning
        part.unlink()
        begun = 0
    if (free := shutil.disk_usage(blobs).free) < size - begun:
        raise Refusal(
            f"{shown} needs {_readable(size - begun)} in {blobs}, where {_readable(free)} are "
            "free; make room, or name a cache on another disk with HF_HUB_CACHE"
        )
    resumed = f", from byte {begun} on" if begun else ""
    print(f"downloading {shown} ({_readable(size)}{resumed}) ...", file=sys.stderr, flush=True)
    url = hf_hub_url(file.repo, file.name, revision=commit)  # the version that was asked about
    try:
        with part.open("ab") as target:
            http_get(
                url,
                target,
                resume_size=begun,
                headers=build_hf_headers(),
                expected_size=size,
                displayed_filename=file.name,
            )
    except HfHubHTTPError:
        raise
    except (OSError, httpx.HTTPError) as error:
        kept = part.stat().st_size
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            advice = "make room, or name a cache on another disk with HF_HUB_CACHE"
        else:
            advice = "run the command again to go on from there"
        raise Refusal(
            f"the download of {shown} ended at {kept} of {size} bytes ({_reason(error)}); {advice}"
        ) from None
    if (found := _hash_of_kind(etag, part)) not in (None, etag):
        part.unlink()
        raise Refusal(
            f"{shown} came as {found}, but the hub says {etag}: it was damaged on the way; run the "
            "command again"
        )
    part.rename(whole)


def _hash_of_kind(etag: str, path: Path) -> str | None:
    """The hash of a file that an ETag of this length is; None for the ETag of another server."""
    if len(etag) == SHA256_DIGITS:
        return file_sha256(path)
    if len(etag) == SHA1_DIGITS:  # of git: a header with the size goes before the content
        header = b"blob %d\0" % path.stat().st_size
        return hashlib.sha1(header + path.read_bytes(), usedforsecurity=False).hexdigest()
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _answered(shown: str, error: HfHubHTTPError) -> str:
    """What the hub answered instead of the file, and what to do."""
    status, endpoint = error.response.status_code, huggingface_hub.constants.ENDPOINT
    if status in (401, 403):
        advice = "it is gone, or it needs HF_TOKEN"
    elif status == 404:
        advice = "it is not there; correct HF_ENDPOINT, or fetch the file by hand"
    else:
        advice = "run the command again later"
    return f"{endpoint} answers {status} to {shown}: {advice} (docs/published-weights.md)"


def _by_hand(file: HubFile) -> str:
    return (
        f"run the command on a machine that reaches https://huggingface.co/{file.repo} and copy "
        "its cache here, or convert files fetched by hand (docs/published-weights.md)"
    )


def _reason(error: Exception) -> str:
    """The first line of an error, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _readable(size: int) -> str:
    """A size in bytes as people read it."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
