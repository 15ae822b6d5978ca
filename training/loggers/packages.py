"""The loggers that a training can name, and the check that their packages are installed."""

from __future__ import annotations

import importlib.util
import netrc
import os
from urllib.parse import urlsplit

from model.refusal import Refusal
from training.config import Loggers


def check_loggers(names: list[str], settings: Loggers, setting: str) -> None:
    """Refuse a logger that cannot record: its package or its key is missing.

    It imports none of the packages, which takes seconds.

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
    if "wandb" in names and settings.wandb == "online" and not _has_wandb_key():
        raise Refusal(
            f"{setting} names wandb and loggers.wandb is online, but there is no key of W&B; run: "
            "wandb login, or set WANDB_API_KEY, or record on this machine with "
            "loggers.wandb=offline"
        )


def _has_wandb_key() -> bool:
    """Whether W&B finds a key where its documentation says: the environment, or the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    file = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc.netrc(file).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
