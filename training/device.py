"""The device that a stage without Lightning computes on, by a setting such as `features.device`."""

from __future__ import annotations

import os

import torch

from model.refusal import Refusal


def chosen_device(wanted: str, setting: str) -> torch.device:
    """The device that a setting names.

    Args:
        wanted: `auto` for the accelerator of this machine if it has one, else the CPU; or a device
            in PyTorch's words, such as `cpu`, `cuda`, `cuda:1` or `mps`. Without a number the
            processes that torchrun starts on a machine take its devices in turn.
        setting: Key of the setting, for the message.

    Raises:
        Refusal: There is no such device here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    here = ["cpu"] if found is None else ["cpu", found.type]
    if wanted == "auto":
        wanted = here[-1]
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise Refusal(
            f"{setting} is {wanted!r}; it must be auto, or a device such as cpu, cuda or cuda:1"
        ) from None
    if device.type not in here:
        raise Refusal(
            f"{setting} is {wanted}, but this machine has {' and '.join(here)} only, as far as its "
            f"PyTorch can tell; set {setting}=auto, or install a PyTorch for that device"
        )
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.accelerator.device_count()
    index = int(os.environ.get("LOCAL_RANK", 0)) % count if device.index is None else device.index
    if index >= count:
        raise Refusal(
            f"{setting} is {wanted}, but this machine has {count} of them, numbered from 0; set "
            f"{setting}={device.type}:{count - 1} or less"
        )
    return torch.device(device.type, index)
