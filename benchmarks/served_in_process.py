"""What a worker of TorchServe computes, without TorchServe around it: run by `benchmarks.serve`.

    python -P benchmarks/served_in_process.py FOLDER        (with PYTHONPATH=FOLDER)

FOLDER is an unpacked archive, loaded as a worker loads it. Each line on stdin is a question, a list
of JSON: `["handler", [[file, options], ...], times]` hands those requests over as one batch;
`["model", count, times]` puts a batch of ready pixels through encoder and search alone; `["decode",
[[file, options], ...], times]` only makes pixels. The answer is a line of JSON: the seconds that
each time took.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.image.decode import load_image
from model.image.preprocessing import to_pixels

TRY_ARCHIVE = Path(__file__).parents[1] / "training" / "try_archive.py"


def timed(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each time."""
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return spent


def answer(service: Any, kind: str, what: Any, times: int) -> list[float]:
    """Do what a line asks for."""
    artifact = service._entry_point.__self__.artifact  # the handler's
    if kind == "model":
        side = artifact.preprocessing.size
        pixels = torch.zeros(what, 3, side, side)
        return timed(lambda: artifact.caption(artifact.encode(pixels), artifact.defaults), times)
    pictures = [Path(file).read_bytes() for file, _ in what]
    if kind == "decode":

        def decode() -> None:
            for picture in pictures:
                image = load_image(picture, side=artifact.preprocessing.size)
                to_pixels(image, artifact.preprocessing)

        return timed(decode, times)

    def predict() -> None:
        requests = [
            {
                "requestId": str(place).encode(),
                "parameters": [
                    {"name": "data", "contentType": "image/jpeg", "value": bytearray(picture)},
                    *(
                        {"name": name, "contentType": "text/plain", "value": value.encode()}
                        for name, value in options.items()
                    ),
                ],
                "headers": [],
            }
            for place, (picture, (_, options)) in enumerate(zip(pictures, what, strict=True))
        ]
        reply = bytes(service.predict(requests))
        # One that failed would be fast: every picture must have been captioned.
        assert reply.count(b'"caption": ') == 2 * len(pictures), reply[-300:]

    return timed(predict, times)


def main(folder: Path) -> None:
    """Answer until stdin ends."""
    replies = sys.stdout
    sys.stdout = sys.stderr  # the handler's logs and metrics are no answers
    # By its path: what is imported by name here is the archive's own code.
    service = runpy.run_path(str(TRY_ARCHIVE))["load"](folder)
    for line in sys.stdin:
        print(json.dumps(answer(service, *json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
