"""Publish a captioner on the Hugging Face hub, with the model card that the evaluation wrote.

`python -m training.publish --checkpoint DIR --to OWNER/NAME [--license ID] [--private]
[--revision BRANCH]` sends the files of the checkpoint folder in one commit, and nothing else. Then
`make serve CHECKPOINT=OWNER/NAME` serves it anywhere, and `train.init=OWNER/NAME` goes on from it.

The token comes from `HF_TOKEN` or `hf auth login`, and needs the right to write. `HF_ENDPOINT`
names another hub. The card gets the licence, the base models and how to use it; the folder itself
stays as it is. A captioner without an evaluation of these weights or without a licence is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from training.command import command


@dataclasses.dataclass(frozen=True)
class Publication:
    """What is published, and where.

    Attributes:
        checkpoint: The checkpoint folder.
        to: The repository, OWNER/NAME.
        license: The hub's identifier of a licence; None for that of the model card.
        private: Whether only its owners may see the repository.
        revision: The branch; None for the main one.
    """

    checkpoint: Path
    to: str
    license: str | None = None
    private: bool = False
    revision: str | None = None


def read_settings(words: Sequence[str]) -> Publication:
    """What is published, from the words of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m training.publish", description=__doc__, formatter_class=form
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--to", required=True, metavar="OWNER/NAME", help="repository on the hub")
    parser.add_argument("--license", metavar="ID", help="such as mit, apache-2.0 or other")
    parser.add_argument("--private", action="store_true", help="only its owners see it")
    parser.add_argument("--revision", metavar="BRANCH", help="another branch than main")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = vars(parser.parse_args(words))
    del given["debug"]
    return Publication(**given)


def main() -> None:
    """Publish what the command line names."""
    settings = read_settings(sys.argv[1:])
    from training.publishing.publish import publish  # after the settings: it imports torch

    publish(settings)


if __name__ == "__main__":
    command(main)
