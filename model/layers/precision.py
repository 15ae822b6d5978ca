"""The precisions that a captioner is served in, and which of them this processor supports.

    fp32   weights and products as trained
    fp16   weights rounded to float16; inputs, products and sums in float32 (FBGEMM)
    bf16   weights and inputs rounded to bfloat16, sums in float32
    int8   weights rounded to 8 bits, with a scale for each output; inputs rounded to 8 bits, with a
           range for each row (LLM.int8(), arXiv 2208.07339, section 2, without its outliers)

In all but fp32 the output layer has 8-bit weights: see `model.layers.output_layer`.

On processors with AMX, oneDNN sums large batches in another order than small ones. In bf16 the
results then differ now and then by one rounding step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

#: From exact to narrow.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
#: Raised whenever a precision computes something else: evaluations with another number are void.
ARITHMETIC = 2


def onednn_available() -> bool:
    """Whether this build of PyTorch has oneDNN; most builds have it, those for Apple's do not."""
    return torch.backends.mkldnn.is_available()


def unsupported_reason(precision: str, onednn: bool = False) -> str:
    """Why this machine cannot run a precision, or an empty string if it can.

    Without AVX-512, oneDNN 3 computes 8-bit products in a reference loop that is a thousand times
    slower. That counts as unsupported.

    Args:
        precision: One of `PRECISIONS`.
        onednn: The layers are already packed by oneDNN, as in the file of an export where it was
            available. Where it is not, `pack_linears` leaves the layers of fp32 as they are.
    """
    if precision not in PRECISIONS:
        return f"there is no precision {precision!r}"
    if onednn and not onednn_available():
        return "its layers need oneDNN, which this build of PyTorch does not have"
    if precision == "fp32":
        return ""
    if precision == "fp16":
        fast = "fbgemm" in torch.backends.quantized.supported_engines
        return "" if fast else "fp16 needs FBGEMM, which is for x86 processors with AVX2"
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not onednn_available():
        return f"{precision} needs a processor with AVX-512"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16 is not supported by this processor"
    return ""


def unsupported_on(device: torch.device, precision: str, onednn: bool = False) -> str:
    """Why a device cannot run a precision, or an empty string if it can.

    Args:
        device: `cpu` or `cuda:N`.
        precision: One of `PRECISIONS`.
        onednn: See `unsupported_reason`.
    """
    if device.type == "cpu":
        return unsupported_reason(precision, onednn)
    if device.type != "cuda":
        return f"the device is {str(device)!r}; it must be cpu or cuda:N"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        return f"there is no GPU {device.index or 0}; torch can use {count}"
    if precision not in PRECISIONS:
        return f"there is no precision {precision!r}"
    if precision == "int8":
        return "int8 is for processors; a GPU takes fp32, fp16 or bf16"
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        return "bf16 is not supported by this GPU"
    return ""


def available() -> tuple[str, ...]:
    """The precisions that this machine supports, from exact to narrow."""
    return tuple(precision for precision in PRECISIONS if not unsupported_reason(precision))


def suppress_quantized_tensor_warning() -> None:
    """Make torch give its warning that quantized tensors are deprecated now, and discard it.

    torch gives it once a process. An 8-bit layer for FBGEMM makes such a tensor when it is packed;
    there TorchScript would write the warning to the log of every worker.
    """
    weight, zeros = torch.zeros([1, 1], dtype=torch.int8), torch.zeros([1], dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch._make_per_channel_quantized_tensor(weight, torch.ones([1]).double(), zeros, 0)


def multiplies_bf16() -> bool:
    """Whether this processor has instructions that multiply bfloat16.

    oneDNN supports bf16 on every processor with AVX-512, but converts it to float32 where these
    instructions are missing, and is slow there. Below AVX-512 it is slower still.
    """
    features: Mapping[str, Any] = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
