"""Encode every image of a data set once, with CLIP.

`python -m training.features` writes a feature file (see `training.encoding.feature_file`). It holds
one pooled feature of each image, or with `features.kind=patches` one feature of each patch, which
the patch mapper reads. Patches take much more room: for ViT-B/32 they are 49 x 768 numbers an
image, 75 kB, where the pooled feature takes 2 kB.

If the command is killed, run it again: it continues after the last complete shard, and the file has
the same bytes as without the kill (see `training.encoding.feature_shards`). Broken images are
listed at the end, and the command fails; `features.on_broken=skip` leaves them out instead.

Several processes, one for each GPU, encode together: `torchrun --nproc-per-node 2 -m
training.features`. On several machines they must see the same folders.
"""

from __future__ import annotations

from training.command import arguments, command
from training.config import load_config


def main() -> None:
    """Encode the data set of the settings."""
    settings = load_config(arguments(__doc__).parse_args().overrides).features
    # Imported only now, because torch takes seconds: a wrong setting is reported before that.
    from training.encoding.encode_dataset import encode_dataset

    skipped = encode_dataset(settings)
    if skipped:
        print(f"left out {skipped} broken images")


if __name__ == "__main__":
    command(main)
