"""The precisions that a captioner is served in, and which of them a processor has.

    fp32   weights and products as trained
    fp16   weights rounded to float16; inputs, products and sums in float32 (FBGEMM)
    bf16   weights and inputs rounded to bfloat16, sums in float32
    int8   weights rounded to 8 bits, a scale for each output; inputs to 8 bits, a range for each
           row (as LLM.int8(), arXiv 2208.07339, section 2, without its outliers)

In all but fp32 the output layer is 8-bit (`narrow_output_linear`): see `model.layers.output_layer`.

With AMX, oneDNN sums large batches in another order than small ones, which bf16 outputs show by one
rounding step now and then.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from model.layers.int8_linear import FbgemmInt8Linear, Int8Linear, suppress_quantized_tensor_warning
from model.layers.linear import Float16Linear, InnerLinear, PackedLinear
from model.refusal import Refusal

#: From exact to narrow.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
#: Counts up whenever one of them computes something else: gates of another number are void.
ARITHMETIC = 2


def unsupported_reason(precision: str) -> str:
    """Why this processor is not to run a precision; empty if it may.

    oneDNN 3 computes 8-bit products without AVX-512 in a reference loop a thousand times slower.
    """
    if precision not in PRECISIONS:
        return f"there is no precision {precision!r}"
    if precision == "fp32":
        return ""
    if precision == "fp16":
        fast = "fbgemm" in torch.backends.quantized.supported_engines
        return "" if fast else "fp16 needs FBGEMM, which is for x86 processors with AVX2"
    if (
        torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not torch.backends.mkldnn.is_available()
    ):
        return f"{precision} needs a processor with AVX-512"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16 is not supported by this processor"
    return ""


def available() -> tuple[str, ...]:
    """The precisions that this processor is to run, from exact to narrow."""
    return tuple(precision for precision in PRECISIONS if not unsupported_reason(precision))


def pack_linears(module: nn.Module, precision: str) -> None:
    """Replace linear layers by this precision's, in place and all the way down.

    These are `nn.Linear` and `InnerLinear`. Other subclasses are left alone: attention
    layers of torch reach into theirs for the weights.

    Raises:
        Refusal: A precision that there is not, or that this processor has not.
    """
    _check(precision)
    if precision == "fp32" and not torch.backends.mkldnn.is_available():
        return  # plain layers compute the same
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and type(child) in (nn.Linear, InnerLinear):
            setattr(module, name, _scripted(_packed(child, precision)))
        else:
            pack_linears(child, precision)


def narrow_output_linear(linear: nn.Linear, precision: str) -> nn.Module:
    """An 8-bit layer for the processors that a precision is for, of a layer without a bias.

    Raises:
        Refusal: A precision that this processor has not.
    """
    _check(precision)
    if linear.bias is not None:
        raise ValueError("an 8-bit output layer has no bias")
    suppress_quantized_tensor_warning()
    return _scripted(FbgemmInt8Linear(linear) if precision == "fp16" else Int8Linear(linear))


def _check(precision: str) -> None:
    """Refuse a precision that there is not, or that this processor has not."""
    if precision not in PRECISIONS:
        raise Refusal(f"precision is {precision!r}; it must be {', '.join(PRECISIONS)}")
    if reason := unsupported_reason(precision):
        raise Refusal(f"{reason}; export with export.precision=fp32")


def _scripted(layer: nn.Module) -> nn.Module:
    """A packed layer, compiled at once: a trace cannot look into its operators' arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(layer)


def _packed(linear: nn.Linear, precision: str) -> nn.Module:
    if precision == "int8":
        return Int8Linear(linear)
    if precision == "fp16":
        return Float16Linear(linear)
    return PackedLinear(linear, torch.bfloat16 if precision == "bf16" else torch.float32)
