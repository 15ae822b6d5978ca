"""A worker's computation without TorchServe, in a process of its own, for `benchmarks.serve`.

    python -P benchmarks/served_in_process.py FOLDER        (with PYTHONPATH=FOLDER)

FOLDER is an unpacked archive, loaded as a worker loads it. Nothing of this repository may be
imported, so that the archive's own code is measured. Each line on stdin is a JSON list `[kind,
requests, times]`, and `requests` is a list of `[file, options]`. The kinds:

    handler   all requests as one batch, JPEG bytes to JSON reply
    model     a batch of as many ready pixels through encoder and search

The answer is one line: a JSON list with the seconds of each time. `InProcess` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

TRY_ARCHIVE = Path(__file__).parents[1] / "training" / "try_archive.py"
#: An image file and the options of its request.
Request = tuple[Path, dict[str, str]]


class InProcess:
    """The process, and questions to it.

    Args:
        archive: The `.mar` file that it loads.
        environment: Variables that a worker has besides those of this process.
        folder: A new folder, to unpack into.
    """

    def __init__(self, archive: Path, environment: Mapping[str, str], folder: Path) -> None:
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(archive) as source:
            source.extractall(unpacked)
        self._errors = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, unpacked],
            cwd=folder,
            env={**environment, **os.environ, "PYTHONPATH": str(unpacked)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> InProcess:
        """Return at once; the process is still loading."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def seconds(self, kind: str, requests: Sequence[Request], times: int) -> list[float]:
        """Seconds of each of several times.

        Args:
            kind: `handler` or `model`.
            requests: One batch.
            times: How often.

        Raises:
            RuntimeError: The process failed.
        """
        asked = [(str(file), options) for file, options in requests]
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # the reason is in its log, read below
            self._process.stdin.write(json.dumps([kind, asked, times]) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(
                f"the archive's handler failed: {self._errors.read()[-300:].strip()}"
            )
        spent: list[float] = json.loads(line)
        return spent


def work(
    service: Any, kind: str, requests: Sequence[tuple[str, dict[str, str]]]
) -> Callable[[], None]:
    """The function that is timed; files are read beforehand."""
    artifact = service._entry_point.__self__.artifact  # the handler's
    images = [Path(file).read_bytes() for file, _ in requests]
    side = artifact.preprocessing.size
    pixels = torch.zeros(len(requests), 3, side, side)

    def run_model() -> None:
        artifact.caption(artifact.encode(pixels), artifact.defaults)

    def run_handler() -> None:
        batch = []
        for number, (image, (_, options)) in enumerate(zip(images, requests, strict=True)):
            image_field = {"name": "data", "contentType": "image/jpeg", "value": bytearray(image)}
            fields = [
                {"name": name, "contentType": "text/plain", "value": value.encode()}
                for name, value in options.items()
            ]
            identity = str(number).encode()
            batch.append(
                {"requestId": identity, "parameters": [image_field, *fields], "headers": []}
            )
        reply = bytes(service.predict(batch))
        # A request that fails would be fast, so every image must have got a caption.
        assert reply.count(b'"caption": ') == 2 * len(images), reply[-300:]

    return {"model": run_model, "handler": run_handler}[kind]


def main(folder: Path) -> None:
    """Answer until stdin ends."""
    replies = sys.stdout
    sys.stdout = sys.stderr  # the handler prints logs and metrics
    service = runpy.run_path(str(TRY_ARCHIVE))["load"](folder)
    for line in sys.stdin:
        kind, requests, times = json.loads(line)
        run = work(service, kind, requests)
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        print(json.dumps(seconds), file=replies, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
