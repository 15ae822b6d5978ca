"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so it costs what reading and
multiplying those weights costs. oneDNN multiplies twice as fast from weights that are laid out in
its own blocks, and faster again from narrower ones. Three precisions, each a class:

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

#: From exact to narrow.
PRECISIONS = ("fp32", "bf16", "int8")


class PackedLinear(nn.Module):
    """y = x W' + b in float32.

    Args:
        linear: The trained layer; its weights are shared, not copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.detach()
        self.bias = _bias(linear)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool]:
        return self.weight, self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool]) -> None:
        self.weight = torch.empty([0])
        self.bias = state[1]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(state[0])
        self.training = state[2]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Bf16Linear(nn.Module):
    """The same with weights, inputs and results in bfloat16; sums are float32.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.detach().bfloat16()
        self.bias = _bias(linear).bfloat16()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool]:
        return self.weight, self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool]) -> None:
        self.weight = torch.empty([0])
        self.bias = state[1]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(state[0])
        self.training = state[2]

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        x = x.to(torch.bfloat16)
        return torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, "none", [], ""
        ).float()


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
        return self.weight, self.scale, self.bias, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, bool]) -> None:
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


def _bias(linear: nn.Linear) -> Tensor:
    """The layer's bias [out]; zeros if it has none."""
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and float32 [out] with weight = int8 * scale, as near as 255 steps allow."""
    scale = weight.abs().amax(1).clamp(min=1e-20) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


def pack_linears(module: nn.Module, precision: str) -> None:
    """Replace, in place and all the way down, every plain `nn.Linear` by one of this precision.

    Subclasses of it are left alone: attention layers of torch reach into theirs for the weights.
    """
    packed = {"fp32": PackedLinear, "bf16": Bf16Linear, "int8": Int8Linear}[precision]
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                # Compiled at once: a trace cannot look into these operators' arguments.
                setattr(module, name, torch.jit.script(packed(child)))
        else:
            pack_linears(child, precision)
