"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so its cost is that of reading
and multiplying those weights. Libraries multiply twice as fast when the weights are packed: stored
in the block layout that the processor's instructions read. Narrower weights are faster again (see
`model.layers.precision`).

A packed layout fits one kind of processor, so a file holds the plain weights. Each layer is packed
after loading (see `model.layers.loading`), a few at a time, so that memory never holds all weights
twice. A layer that was not packed then packs itself at its first use. On a GPU the plain weights
are used as they are.

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Activations that an inner layer may apply to its outputs.
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "swish")


class InnerLinear(nn.Linear):
    """A linear layer with an activation, whose outputs only attention or a linear layer reads.

    When it is packed, its outputs may therefore have the type of its weights (bfloat16). The
    activation is part of the layer so that the product's float32 sums go through it before they are
    rounded.

    Args:
        inputs: Width of the inputs.
        outputs: Width of the outputs.
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
    """Apply an activation of `ACTIVATIONS` to each element of x."""
    if activation == "swish":
        return F.silu(x)
    if activation == "none":
        return x
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class PackedLinear(nn.Module):
    """y = activation(x W' + b) with weights in float32 or bfloat16 (oneDNN).

    The sums are float32, and the activation is applied to them.

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
        self.plain = False

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool, str, bool]:
        """The content of the file: plain weights and the bias."""
        return self.weight, self.bias, self.inner, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool, str, bool]) -> None:
        """Read the content of the file; the weights are not packed yet."""
        self.weight = state[0]
        self.bias = state[1]
        self.inner = state[2]
        self.activation = state[3]
        self.packed = torch.empty([0])
        self.ready = False
        self.plain = False
        self.training = state[4]

    @torch.jit.export
    def keep_plain(self) -> None:
        """Compute with the plain weights, on a device that has no packed layout."""
        self.ready = True
        self.plain = True

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and free the plain ones; after this the layer cannot be saved."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.weight = torch.empty([0])
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out], float32 unless this is an inner layer."""
        if not self.ready:
            self.pack()
        if self.plain:
            y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
            y = activated(y, self.activation)
            return y if self.inner else y.to(torch.float32)
        name, approximation = self.activation, "none"
        if name == "gelu_tanh":
            name, approximation = "gelu", "tanh"
        x = x.to(self.bias.dtype)
        y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], approximation)
        return y if self.inner else y.to(torch.float32)


class Float16Linear(nn.Module):
    """y = activation(x W' + b) with weights in float16, widened as they are read (FBGEMM).

    Inputs and outputs are float32. It needs AVX2 only, and rounds weights eight times as finely as
    bfloat16. Weights are clamped to float16's largest number, 65,504.

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
        self.plain = False

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, str, bool]:
        """The content of the file: plain weights and the bias."""
        return self.weight, self.bias, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, str, bool]) -> None:
        """Read the content of the file; the weights are not packed yet."""
        self.weight = state[0]
        self.bias = state[1]
        self.activation = state[2]
        self.packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros([1, 1]), None)
        self.ready = False
        self.plain = False
        self.training = state[3]

    @torch.jit.export
    def keep_plain(self) -> None:
        """Compute with the plain weights, on a device that has no packed layout."""
        self.ready = True
        self.plain = True

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and free the plain ones; after this the layer cannot be saved."""
        weight = self.weight.float()
        self.weight = torch.empty([0], dtype=torch.float16)
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight, self.bias)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        if self.plain:  # inputs in float16, too: a GPU's products take both in one type
            y = F.linear(x.to(torch.float16), self.weight).to(torch.float32) + self.bias
        else:
            y = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return activated(y, self.activation)


def bias_of(linear: nn.Linear) -> Tensor:
    """The layer's bias [out]; zeros if it has none."""
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def activation_of(linear: nn.Linear) -> str:
    """The name in `ACTIVATIONS` of the layer's activation."""
    return linear.activation if isinstance(linear, InnerLinear) else "none"
