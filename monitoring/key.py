"""The key with which the commands of this room ask a gateway."""

from __future__ import annotations

import os
from pathlib import Path

from model.refusal import Refusal

#: Environment variable of the key, where no file is given; as for `python -m client`.
TOKEN = "CLIPCAP_TOKEN"


def read_key(file: Path | None) -> str | None:
    """The key in a file, or else that of the environment; None for none.

    Args:
        file: The file, or None.

    Raises:
        Refusal: The file is empty.
        OSError: It cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN)
    if key := file.read_text().strip():
        return key
    raise Refusal(f"{file} is empty; it must hold a key of the gateway")
