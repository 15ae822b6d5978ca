"""A stand-in for an accelerator, to find code that mixes its tensors with those of the CPU.

A `Remote` says that it is on the device `meta`, and holds its values on the CPU. So code runs with
real values, but an operation that would fail on a GPU, because one of its tensors was made on the
CPU, fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
#: Operations that may read from one device and write to another.
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Remote(Tensor):
    """A tensor of that device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Remote:
        made: Any = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Code in this block may make tensors on the device, and must not mix devices."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(operation, args, kwargs or {})


class MadeThere(TorchFunctionMode):
    """`torch.tensor` on the device; it does not come to a dispatch mode."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return Remote(torch.tensor(*args, **{**kwargs, "device": "cpu"}))
        return function(*args, **kwargs)


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    remote = [each for each in tensors if isinstance(each, Remote)]
    local = [each for each in tensors if not isinstance(each, Remote) and each.dim()]
    if remote and local and operation not in COPIES:
        raise AssertionError(f"{operation} mixes a tensor of the CPU with one of another device")
    wanted = kwargs.get("device")
    there = bool(remote) if wanted is None else torch.device(wanted) == DEVICE
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    before = {id(each.held): each for each in remote}  # of an operation in place

    def held(each: Any) -> Any:
        return each.held if isinstance(each, Remote) else each

    def placed(each: Any) -> Any:
        if not there or not isinstance(each, Tensor):
            return each
        return before[id(each)] if id(each) in before else Remote(each)

    found = operation(*tree_map(held, args), **tree_map(held, kwargs))
    return tree_map(placed, found)


def moved(module: nn.Module) -> nn.Module:
    """The same module with its parameters, buffers and other tensors on the device."""
    for each in module.modules():
        others = {name: own for name, own in vars(each).items() if isinstance(own, Tensor)}
        for name, own in others.items():
            setattr(each, name, Remote(own))
        for values in (each._parameters, each._buffers):
            for name, value in values.items():
                if value is not None:
                    values[name] = Remote(value.detach())  # type: ignore[assignment]
    return module


def fetched(found: Any) -> Any:
    """Tensors brought back to the CPU."""
    return tree_map(lambda each: each.held if isinstance(each, Remote) else each, found)


def on_other_device(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed without a mix of devices."""
    with torch.no_grad(), MadeThere(), OtherDevice():
        return fetched(work())
