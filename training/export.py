"""Export a checkpoint as one TorchScript file or as programs, and check that it computes the same.

`python -m training.export [--checkpoint DIR] [--out DIR]` writes `captioner.pt`, `captioner.json`
and `tokenizer.json`, loads them again, and captions sample pictures with them and with the
Hugging Face modules that they came from. The export is put in place only if both agree. With
`export.format=programs` it writes programs of `torch.export` in place of `captioner.pt`, which
`python -m training.try_artifact` runs and a server does not.

The sample pictures come from the data set `export.data`. They are generated where that is null or
is no data set, and where `--checkpoint` names another checkpoint than `export.checkpoint` without
`export.data=` on the command line: it may be a captioner of other pictures.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from training.command import arguments, command
from training.config import Export, load_config


def read_settings(words: Sequence[str]) -> Export:
    """Settings of an export from the words of its command line.

    Raises:
        Refusal: A setting cannot be read.
    """
    parser = arguments(__doc__)
    parser.add_argument(
        "--checkpoint", help="export.checkpoint: checkpoint folder, or OWNER/NAME on the hub"
    )
    parser.add_argument("--out", help="export.out: artifact folder")
    options = parser.parse_args(words)
    settings = load_config(options.overrides).export
    if options.checkpoint:
        same = Path(options.checkpoint).resolve() == Path(settings.checkpoint).resolve()
        data_given = any(word.startswith("export.data=") for word in options.overrides)
        data = settings.data if same or data_given else None
        settings = dataclasses.replace(settings, checkpoint=options.checkpoint, data=data)
    if options.out:
        settings = dataclasses.replace(settings, out=options.out)
    return settings


def main() -> None:
    """Export with the settings of the command line."""
    settings = read_settings(sys.argv[1:])
    from training.exporting.export import export_and_report  # after the settings: it imports torch

    export_and_report(settings)


if __name__ == "__main__":
    command(main)
