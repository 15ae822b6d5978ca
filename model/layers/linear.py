"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so it costs what reading and
multiplying those weights costs. Libraries multiply twice as fast from weights that are laid out in
their own blocks, and faster again from narrower ones (see `model.layers.precision`).

A packed layout belongs to one processor, so the file holds the plain weights of its precision.
Whoever loads it packs the layers (`pack`), a few at a time, so that memory never holds all weights
twice; one that was forgotten packs itself when it is first used. TorchScript compiles this file as
it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: What an inner layer may apply to its sums.
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "swish")


class InnerLinear(nn.Linear):
    """A linear layer whose outputs go into attention or another linear layer, and nowhere else.

    Packed, it may therefore give them in the type of its weights. It applies its activation itself,
    so that the multiplication can do that to its sums before it rounds them.

    Args:
        inputs: Width of what it reads.
        outputs: Width of what it gives.
        activation: `none`, `gelu`, `gelu_tanh` (its approximation by tanh, GPT-2's) or `swish`.
    """

    def __init__(self, inputs: int, outputs: int, activation: str = "none") -> None:
        super().__init__(inputs, outputs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; it must be {', '.join(ACTIVATIONS)}")
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return activated(F.linear(input, self.weight, self.bias), self.activation)


def activated(x: Tensor, activation: str) -> Tensor:
    """The activation of each number of x."""
    if activation == "swish":
        return F.silu(x)
    if activation == "none":
        return x
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class PackedLinear(nn.Module):
    """y = x W' + b, and the activation of an `InnerLinear`, in the type of its weights.

    Sums are float32, and the activation is applied to them.

    Args:
        linear: The trained layer; weights that keep their type are shared, not copied.
        dtype: float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = bias_of(linear).to(dtype)
        self.inner = isinstance(linear, InnerLinear)
        self.activation = activation_of(linear)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.ready = True

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool, str, bool]:
        """What the file holds: plain weights."""
        return self.weight, self.bias, self.inner, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool, str, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.bias = state[1]
        self.inner = state[2]
        self.activation = state[3]
        self.packed = torch.empty([0])
        self.ready = False
        self.training = state[4]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.weight = torch.empty([0])
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out], float32 unless this is an inner layer."""
        if not self.ready:
            self.pack()
        name, how = self.activation, "none"
        if name == "gelu_tanh":
            name, how = "gelu", "tanh"
        x = x.to(self.bias.dtype)
        y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], how)
        return y if self.inner else y.to(torch.float32)


class Float16Linear(nn.Module):
    """The same with weights in float16, which are widened as they are read: outputs are float32.

    Needs nothing of a processor that AVX2 has not, and rounds weights eight times as finely as
    bfloat16, inputs not at all.
    Weights beyond 65,504 become that.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        largest = torch.finfo(torch.float16).max
        self.weight = linear.weight.detach().clamp(-largest, largest).to(torch.float16)
        self.bias = bias_of(linear)
        self.activation = activation_of(linear)
        self.packed = torch.ops.quantized.linear_prepack_fp16(self.weight.float(), self.bias)
        self.ready = True

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, str, bool]:
        """What the file holds: plain weights."""
        return self.weight, self.bias, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, str, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.bias = state[1]
        self.activation = state[2]
        self.packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros([1, 1]), None)
        self.ready = False
        self.training = state[3]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        weight = self.weight.float()
        self.weight = torch.empty([0], dtype=torch.float16)
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight, self.bias)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        y = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return activated(y, self.activation)


def bias_of(linear: nn.Linear) -> Tensor:
    """The layer's bias [out]; zeros if it has none."""
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def activation_of(linear: nn.Linear) -> str:
    """What the layer applies to its sums."""
    return linear.activation if isinstance(linear, InnerLinear) else "none"
