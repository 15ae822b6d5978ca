"""Learn what the pictures that a captioner was trained on look like to its encoder.

`python -m training.ood [--checkpoint DIR]` encodes the training and validation pictures of a data
set with the captioner's own CLIP. It finds groups of the training features, their centres and the
covariance within them, and the scores of the validation pictures, and writes them beside the
weights, which stay as they are:

    ood.safetensors   the out-of-distribution score
    ood.json          what it was learned from
    reference.jsonl   what the captioner says about validation pictures

A server then says how unusual each picture is: in its metrics, and in replies that ask for `ood`.
`monitoring.drift` compares what a server captured with the reference.
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
    parser.add_argument("--data", help="ood.data: another caption data set")
    parser.add_argument("--checkpoint", help="ood.checkpoint: checkpoint folder")
    options = parser.parse_args(words)
    config = load_config(options.overrides)
    settings = dataclasses.replace(config.ood, **given_options(options, "data", "checkpoint"))
    return dataclasses.replace(config, ood=settings)


def main() -> None:
    """Learn with the settings of the command line."""
    config = read_settings(sys.argv[1:])
    from training.ood_score.learn import learn  # after the settings: it imports torch

    learn(config.ood)


if __name__ == "__main__":
    command(main)
