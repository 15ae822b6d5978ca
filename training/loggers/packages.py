"""The loggers that a training can name, and the check that their packages are installed."""

from __future__ import annotations

import importlib.util

from model.refusal import Refusal
from training.config import Loggers


def check_loggers(names: list[str], settings: Loggers, setting: str) -> None:
    """Refuse a logger that cannot record: its package or its key is missing.

    Args:
        names: The loggers, each named like its package and its extra.
        settings: See `training.config.Loggers`.
        setting: Key of the names, for the message.

    Raises:
        Refusal: With the line that installs the package, or what to do about the key.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(
            f"{setting} names {' and '.join(missing)}, but the package is not installed; run: "
            f"pip install -c constraints.txt -e '.[{','.join(missing)}]'"
        )
    if "wandb" in names and settings.wandb == "online":
        _check_wandb_key(setting)


def _check_wandb_key(setting: str) -> None:
    """Refuse a training that W&B's server will not record; a key is verified there."""
    import wandb  # here, as it takes a second

    advice = "record on this machine with loggers.wandb=offline"
    try:
        known = wandb.login(prompt=False)
    except wandb.Error as error:
        raise Refusal(
            f"{setting} names wandb, but its server says no ({error}); {advice}"
        ) from None
    if not known:
        raise Refusal(
            f"{setting} names wandb and loggers.wandb is online, but there is no key of W&B; run: "
            f"wandb login, or set WANDB_API_KEY, or {advice}"
        )
