"""Replaces the linear layers of a network by packed ones of a precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from model.layers.int8_linear import FbgemmInt8Linear, Int8Linear
from model.layers.linear import Float16Linear, InnerLinear, PackedLinear
from model.layers.precision import (
    PRECISIONS,
    onednn_available,
    suppress_quantized_tensor_warning,
    unsupported_reason,
)
from model.refusal import Refusal


def pack_linears(module: nn.Module, precision: str) -> None:
    """Replace all linear layers inside a module by packed ones, in place.

    Only `nn.Linear` and `InnerLinear` are replaced. Attention layers of torch have subclasses of
    `nn.Linear` whose weights they read themselves; those stay.

    Args:
        module: The network.
        precision: One of `PRECISIONS`.

    Raises:
        Refusal: There is no such precision, or this processor does not support it.
    """
    _check(precision)
    if precision == "fp32" and not onednn_available():
        return  # plain layers compute the same
    replace_linears(module, lambda linear: _scripted(packed_linear(linear, precision)))


def replace_linears(module: nn.Module, replacement: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace the linear layers inside a module, in place; which ones, `pack_linears` says.

    Args:
        module: The network.
        replacement: Makes what stands for a layer.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and type(child) in (nn.Linear, InnerLinear):
            setattr(module, name, replacement(child))
        else:
            replace_linears(child, replacement)


def narrow_output_linear(linear: nn.Linear, precision: str) -> nn.Module:
    """The 8-bit layer that stands for an output layer in a precision.

    Args:
        linear: The output layer; it has no bias.
        precision: One of `PRECISIONS` but fp32: fp16 gives FBGEMM's layer, the others oneDNN's.

    Raises:
        Refusal: There is no such precision, or this processor does not support it.
    """
    _check(precision)
    if linear.bias is not None:
        raise ValueError("an 8-bit output layer has no bias")
    suppress_quantized_tensor_warning()
    return _scripted(FbgemmInt8Linear(linear) if precision == "fp16" else Int8Linear(linear))


def _check(precision: str) -> None:
    """Refuse an unknown precision, or one that this processor does not support."""
    if precision not in PRECISIONS:
        raise Refusal(f"precision is {precision!r}; it must be {', '.join(PRECISIONS)}")
    if reason := unsupported_reason(precision):
        raise Refusal(f"{reason}; export with export.precision=fp32")


def _scripted(layer: nn.Module) -> nn.Module:
    """A packed layer, scripted: tracing cannot record the packed weights its operators take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(layer)


def packed_linear(linear: nn.Linear, precision: str) -> nn.Module:
    """The packed layer that stands for a linear layer in a precision, not yet scripted.

    Args:
        linear: The trained layer.
        precision: One of `PRECISIONS`, which this processor supports.
    """
    if precision == "int8":
        return Int8Linear(linear)
    if precision == "fp16":
        return Float16Linear(linear)
    return PackedLinear(linear, torch.bfloat16 if precision == "bf16" else torch.float32)
