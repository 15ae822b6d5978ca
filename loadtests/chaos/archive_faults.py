"""Archives that must be refused at the start: with a reason, and no process left."""

from __future__ import annotations

import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from deploy.errors import ServeError
from loadtests.chaos.case import Case, Failed, check
from loadtests.chaos.serving import Serving
from loadtests.chaos.stage import Stage

#: Seconds in which a refusal must come: the worker imports torch before it reads the archive.
REFUSAL_SECONDS = 90.0


def truncated(stage: Stage) -> str:
    """Serve the first half of an archive."""
    broken = stage.folder / "clipcap.mar"
    data = stage.archive.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    return _refusal(stage, broken, "")


def other_version(stage: Stage) -> str:
    """Serve an artifact of another version of our format."""

    def change(data: bytes) -> bytes:
        info = json.loads(data)
        return json.dumps({**info, "format": info["format"] + 1}).encode()

    return _refusal(stage, _changed(stage, "captioner.json", change), "format")


def tampered_weights(stage: Stage) -> str:
    """Serve weights of which one byte was changed."""

    def change(data: bytes) -> bytes:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    return _refusal(stage, _changed(stage, "captioner.pt", change), "SHA-256")


def _changed(stage: Stage, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the archive with one file of it changed, and right checksums of the copy."""
    target = stage.folder / "clipcap.mar"
    with zipfile.ZipFile(stage.archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            copy.writestr(name, change(data) if name == member else data)
    return target


def _refusal(stage: Stage, archive: Path, word: str) -> str:
    """Start a server with an archive; the message of its refusal.

    Raises:
        Failed: It starts, or is refused too late, in more than a line or without a word.
    """
    serving = Serving(stage.folder / "server", archive, {})
    begin = time.monotonic()
    try:
        serving.start_torchserve()
    except ServeError as error:
        message = str(error)
    else:
        serving.stop()
        raise Failed("it was served")
    spent = time.monotonic() - begin
    check(spent < REFUSAL_SECONDS, f"refused only after {spent:.0f} s: {message}")
    check(
        "\n" not in message and word in message, f"the message is no line with {word!r}: {message}"
    )
    check(serving.server.process() is None, "TorchServe runs still")
    shutil.rmtree(stage.folder / "server")
    shown = re.sub(r"/\S*/", "", message.partition(" (logs:")[0])  # folders say nothing to readers
    return f"refused after {spent:.1f} s: {shown}"


CASES = [
    Case("archive-truncated", "the first half of an archive is served", "refused", truncated),
    Case("archive-version", "an archive of another format is served", "refused", other_version),
    Case("archive-tampered", "one byte of the weights is changed", "refused", tampered_weights),
]
