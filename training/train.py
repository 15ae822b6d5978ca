"""Train a captioner on a data set: on cached features of its images, or on the images themselves.

`python -m training.train` learns the mapper (an MLP or a transformer, as in the paper, or one that
reads patches) and GPT-2 (from scratch, or a Hugging Face one that is fine-tuned, frozen, or tuned
with LoRA). It keeps the epoch with the best validation CIDEr and writes it as a checkpoint folder
together with the encoder. CLIP is frozen unless `train.clip.tuning` is full or lora: then it learns
from the caption loss too. `train.resume=true` continues an interrupted run where it stopped.
"""

from __future__ import annotations

from training.captioner.settings import check_train
from training.command import arguments, command
from training.config import load_config
from training.loggers.packages import check_loggers


def main() -> None:
    """Train with the settings of the command line."""
    config = load_config(arguments(__doc__).parse_args().overrides)
    check_train(config.train)
    check_loggers(config.train.loggers, config.loggers, "train.loggers")
    from training.captioner.train import train  # after the checks: it imports torch and Lightning

    train(config)


if __name__ == "__main__":
    command(main)
