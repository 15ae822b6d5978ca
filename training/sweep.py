"""Search for better settings of the captioner's training, with Optuna.

`python -m training.sweep sweep=NAME` varies the settings that `training/conf/sweep/NAME.yaml` lists
and trains a captioner with each choice. A trial whose validation CIDEr is below the median of those
before it ends early. Words of the command line join in: `train.batch_size=64,128` is varied too,
`train.epochs=2` holds for all trials. They are Hydra's words for sweeps, but the loop is Optuna's
own: Hydra's Optuna sweeper needs an old Optuna, and cannot end a trial early. The trials are in a
SQLite file, so the same command goes on with a sweep that was killed.
"""

from __future__ import annotations

import importlib.util

from model.refusal import Refusal
from training.command import arguments, command
from training.sweeping.space import read_search


def main() -> None:
    """Sweep with the settings of the command line."""
    search = read_search(arguments(__doc__).parse_args().overrides)
    if importlib.util.find_spec("optuna") is None:
        raise Refusal(
            "training.sweep needs the package optuna, which is not installed; run: pip install "
            "-c constraints.txt -e '.[sweep]'"
        )
    from training.sweeping.study import sweep  # after the checks: it imports torch and Optuna

    sweep(search)


if __name__ == "__main__":
    command(main)
