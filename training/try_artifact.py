"""Captions pictures with an exported captioner in this process, without TorchServe or the handler.

    python -m training.try_artifact ARTIFACT PICTURE ...

It prints one line of JSON for each picture: `caption`, `log_prob` and `tokens`. A server of the
same artifact must answer the same; `deploy/golden.py` compares them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.command import command


def caption_files(artifact: Path, pictures: list[Path]) -> list[dict[str, Any]]:
    """The best caption of each picture, with the captioner's own options.

    Args:
        artifact: Folder of an exported captioner.
        pictures: Picture files; each is captioned alone.

    Raises:
        Refusal: The artifact is damaged, or a file is no picture.
        OSError: A file cannot be read.
    """
    from model.image.decode import load_image
    from model.image.preprocessing import to_pixels
    from model.programs.load import load_artifact

    captioner = load_artifact(artifact)
    found = []
    for picture in pictures:
        image = load_image(picture.read_bytes(), side=captioner.preprocessing.size)
        features = captioner.encode(to_pixels(image, captioner.preprocessing)[None])
        best = captioner.caption(features, captioner.defaults)[0][0]
        found.append({"caption": best.text, "log_prob": best.log_prob, "tokens": best.tokens})
    return found


def main() -> None:
    """Print the captions of the pictures on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path, help="folder of an exported captioner")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="picture file")
    given = parser.parse_args()
    for caption in caption_files(given.artifact, given.pictures):
        print(json.dumps(caption))


if __name__ == "__main__":
    command(main)
