"""Fetches mermaid, the script that draws the site's diagrams: `python -m website.mermaid`.

The diagrams are text in the pages, which GitHub draws as well. The script has 3.5 MB, so it is no
file of this repository: npm fetches the version that stands here, and its SHA-256 must be the one
that stands here. Without it the site still builds, and a reader's browser asks unpkg.com for it.

To take another version: change both, and look at the diagrams.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from model.refusal import Refusal

VERSION = "11.16.0"
SHA256 = "74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
MEMBER = "package/dist/mermaid.min.js"
FILE = Path(__file__).resolve().parent.parent / "build" / "website" / f"mermaid-{VERSION}.min.js"


def fetch(file: Path = FILE) -> None:
    """Put the script into a file, unless it is there already.

    Raises:
        Refusal: npm is missing or fails, or what it gives has another SHA-256.
    """
    if file.is_file() and _sha256(file.read_bytes()) == SHA256:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise Refusal(
            f"npm, which fetches mermaid {VERSION} for the diagrams, is not installed; install it "
            f"(apt-get install npm), or put mermaid.min.js of that version at {file}"
        )
    with tempfile.TemporaryDirectory() as folder:
        words = [npm, "pack", "--silent", "--pack-destination", folder, f"mermaid@{VERSION}"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise Refusal(f"npm pack mermaid@{VERSION} failed: {reason}; is there a network?")
        with tarfile.open(Path(folder) / f"mermaid-{VERSION}.tgz") as archive:
            member = archive.extractfile(MEMBER)
            script = member.read() if member else b""
    if (found := _sha256(script)) != SHA256:
        raise Refusal(f"mermaid {VERSION} has SHA-256 {found}, and not {SHA256}; do not use it")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_bytes(script)
    partial.replace(file)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    """Fetch it; an error is one line."""
    try:
        fetch()
    except (Refusal, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
