"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so it costs what reading and
multiplying those weights costs. oneDNN multiplies twice as fast from weights that are laid out in
its own blocks, and faster again from narrower ones. Three precisions:

    fp32   weights and products as trained
    bf16   weights and inputs rounded to bfloat16, sums in float32
    int8   weights rounded to 8 bits, a scale for each output; inputs to 8 bits, a scale for each
           row (as LLM.int8(), arXiv 2208.07339, section 2, without its outliers): a row's result
           does not depend on which other rows are in the batch

A packed layout belongs to one processor, so the file holds the plain weights of its precision, and
loading it packs them, one layer after another. TorchScript compiles this file as it is.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from model.refusal import Refusal

#: From exact to narrow.
PRECISIONS = ("fp32", "bf16", "int8")


class PackedLinear(nn.Module):
    """y = x W' + b in the type of its weights; sums are float32.

    Args:
        linear: The trained layer; weights that keep their type are shared, not copied.
        dtype: float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = _bias(linear).to(dtype)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool]:
        """What the file holds: plain weights."""
        return self.weight, self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool]) -> None:
        """Pack the weights [out, in] and let them go."""
        self.weight = torch.empty([0])
        self.bias = state[1]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(state[0])
        self.training = state[2]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(
            x.to(self.bias.dtype), self.packed, self.bias, "none", [], ""
        ).to(x.dtype)


class Int8Linear(nn.Module):
    """The same with 8-bit weights and inputs; products are summed exactly, then scaled.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.bias = _bias(linear)
        self.zeros = torch.zeros([self.weight.shape[0]], dtype=torch.int32)
        self.middle = torch.tensor(128.5)
        self.packed = torch.ops.onednn.qlinear_prepack(self.weight, None)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, bool]:
        """What the file holds: plain 8-bit weights, their scales, and the bias."""
        return self.weight, self.scale, self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, bool]) -> None:
        """Pack the weights [out, in] and let them go."""
        self.weight = torch.empty([0], dtype=torch.int8)
        self.scale = state[1]
        self.bias = state[2]
        self.zeros = torch.zeros([state[0].shape[0]], dtype=torch.int32)
        self.middle = torch.tensor(128.5)
        self.packed = torch.ops.onednn.qlinear_prepack(state[0], None)
        self.training = state[3]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-20).div_(127.0)  # [..., 1]
        # Unsigned with 128 in the middle, which is what processors multiply by signed weights;
        # cutting the fraction off behind adding a half rounds.
        rounded = torch.addcmul(self.middle, x, scale.reciprocal()).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1.0,
            128,
            self.packed,
            self.scale,
            self.zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return torch.addcmul(self.bias, y, scale)


def _packed(linear: nn.Linear, precision: str) -> nn.Module:
    if precision == "int8":
        return Int8Linear(linear)
    return PackedLinear(linear, torch.bfloat16 if precision == "bf16" else torch.float32)


def _bias(linear: nn.Linear) -> Tensor:
    """The layer's bias [out]; zeros if it has none."""
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and float32 [out] with weight = int8 * scale, as near as 255 steps allow."""
    scale = weight.abs().amax(1).clamp(min=1e-20) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


def why_not(precision: str) -> str:
    """Why this processor is not to run a precision; empty if it may.

    oneDNN 3 computes 8-bit products without AVX-512 in a reference loop a thousand times slower.
    """
    if precision == "fp32":
        return ""
    if (
        torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not torch.backends.mkldnn.is_available()
    ):
        return f"{precision} needs a processor with AVX-512"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16 is not supported by this processor"
    return ""


def pack_linears(module: nn.Module, precision: str) -> None:
    """Replace, in place and all the way down, every plain `nn.Linear` by one of this precision.

    Subclasses of it are left alone: attention layers of torch reach into theirs for the weights.

    Raises:
        Refusal: A precision that there is not, or that this processor has not.
    """
    if precision not in PRECISIONS:
        raise Refusal(f"precision is {precision!r}; it must be {', '.join(PRECISIONS)}")
    if reason := why_not(precision):
        raise Refusal(f"{reason}; export with export.precision=fp32")
    if not torch.backends.mkldnn.is_available():
        return  # plain layers compute the same
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                # Compiled at once: a trace cannot look into these operators' arguments.
                setattr(module, name, torch.jit.script(_packed(child, precision)))
        else:
            pack_linears(child, precision)
