"""Train CLIP on a caption data set: contrastive, with caption and region losses beside it.

`python -m training.clip clip.data=DIR clip.out=DIR` trains a small CLIP from scratch, or fine-tunes
any Hugging Face CLIP when `clip.base` names one, all of it or with LoRA (`clip.tuning`). The result
is a Hugging Face folder: `CLIPModel`, tokenizer, preprocessor, and a README with the command, the
data and the retrieval figures. See `training.contrastive.train` for the losses.
"""

from __future__ import annotations

from training.command import arguments, command
from training.config import load_config
from training.contrastive.settings import check_clip
from training.loggers.packages import check_loggers


def main() -> None:
    """Train with the settings of the command line."""
    config = load_config(arguments(__doc__).parse_args().overrides)
    check_clip(config.clip)
    check_loggers(config.clip.loggers, config.loggers, "clip.loggers")
    from training.contrastive.train import train_clip  # after the checks: it imports torch

    train_clip(config.clip, config.loggers)


if __name__ == "__main__":
    command(main)
