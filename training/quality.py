"""Learn how likely a captioner's captions are right, after it was trained.

`python -m training.quality [--checkpoint DIR]` lets a captioner caption the validation pictures of
its data set, by its own defaults and by chance, and says how right each caption is: by the truth
about the picture where the data set has it, as drawn scenes do, or else by its references. From
these captions it learns a small head on the decoder's states, calibrates it on pictures that were
held out, and writes it beside the weights, which stay as they are:

    quality.safetensors   the head
    quality.json          what it was learned from, and its figures on pictures held out

Replies then have a field `quality`. Of drawn scenes more are drawn, up to `quality.pictures`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from training.command import arguments, command, given_options
from training.config import Config, load_config


def read_settings(words: Sequence[str]) -> Config:
    """Settings from the words of the command line.

    Raises:
        Refusal: A setting cannot be read.
    """
    parser = arguments(__doc__)
    parser.add_argument("--data", help="quality.data: another caption data set")
    parser.add_argument("--checkpoint", help="quality.checkpoint: checkpoint folder")
    options = parser.parse_args(words)
    config = load_config(options.overrides)
    settings = dataclasses.replace(config.quality, **given_options(options, "data", "checkpoint"))
    return dataclasses.replace(config, quality=settings)


def main() -> None:
    """Learn with the settings of the command line."""
    config = read_settings(sys.argv[1:])
    from training.judging.learn import learn  # after the settings: it imports torch

    learn(config)


if __name__ == "__main__":
    command(main)
