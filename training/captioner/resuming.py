"""Check that an interrupted run can be resumed with the present settings."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from model.refusal import Refusal

# Errors of torch.load for files that are damaged or were not written by torch.save.
_DAMAGED = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def check_resumable(file: Path, module: nn.Module, setting: str) -> None:
    """Refuse to resume from a checkpoint of another model or tuning.

    Args:
        file: Lightning's checkpoint of the run.
        module: The module that would be resumed.
        setting: The setting that asks for it, for the message.

    Raises:
        Refusal: Names or shapes of the weights differ, or the file is damaged.
    """
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu", mmap=True)["state_dict"]
    except _DAMAGED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal(
            f"{setting} is true but {file} is damaged ({reason}); start anew with {setting}=false"
        ) from None
    found, wanted = ({k: v.shape for k, v in each.items()} for each in (saved, module.state_dict()))
    if found != wanted:
        first = min(name for name, _ in found.items() ^ wanted.items())
        raise Refusal(
            f"{setting} is true but {file} is of a run with other models or another tuning (first "
            f"difference: {first}); set them as they were, or start anew with {setting}=false"
        )
