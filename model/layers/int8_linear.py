"""Linear layers with 8-bit weights and inputs of 8 or 7 bits, packed as in `model.layers.linear`.

Every row of inputs is rounded with a range of its own, so that its result does not depend on the
other rows of the batch.

Axes: R rows of inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.linear import activated, activation_of, bias_of


class Int8Linear(nn.Module):
    """8-bit weights and inputs, for AVX-512 (oneDNN); products are summed exactly, then scaled.

    Each row x of inputs is rounded to 255 steps between its minimum m and its maximum M:
    x = s q + m with s = (M - m) / 255 and whole q from 0 to 255. So y = s (q W') + m (1 W') + b.

    `gelu_tanh` is computed as the exact GELU: that takes half the time, and the difference of at
    most 0.0005 is a tenth of a rounding step of the next layer's inputs.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.bias = bias_of(linear)
        self.activation = activation_of(linear)
        self.plain = False
        self._prepare()

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, str, bool]:
        """The content of the file: plain 8-bit weights, their scales, and the bias."""
        return self.weight, self.scale, self.bias, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, str, bool]) -> None:
        """Read the content of the file; the weights are not packed yet."""
        self.weight = state[0]
        self.scale = state[1]
        self.bias = state[2]
        self.activation = state[3]
        empty = torch.empty([0])
        self.packed, self.step, self.sums, self.zeros, self.limits = (
            empty,
            empty,
            empty,
            empty,
            empty,
        )
        self.ready = False
        self.plain = False
        self.training = state[4]

    @torch.jit.export
    def keep_plain(self) -> None:
        """Compute with float16 weights, on a device that has no packed layout."""
        self.weight = (self.weight.to(torch.float32) * self.scale[:, None]).to(torch.float16)
        self.ready = True
        self.plain = True

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and free the plain ones; after this the layer cannot be saved."""
        self._prepare()
        self.weight = torch.empty([0], dtype=torch.int8)

    @torch.jit.export
    def _prepare(self) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
        self.step = self.scale / 255
        self.sums = self.weight.sum(1, dtype=torch.int32) * self.scale  # 1 W', [out]
        self.zeros = torch.zeros([self.scale.shape[0]], dtype=torch.int32)
        self.limits = torch.tensor([[0, 255]], dtype=torch.uint8)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        if self.plain:
            y = F.linear(x.to(torch.float16), self.weight).to(torch.float32) + self.bias
            return activated(y, self.activation)
        width = x.shape[-1]
        # This operator is made for embedding tables. It is the only one that rounds each row to its
        # own range in one pass. Behind the bytes of a row it writes 8 bytes: step and minimum.
        rounded = torch.ops.quantized.embedding_bag_byte_prepack(x.reshape(-1, width))
        limits = torch.cat([self.limits.expand(rounded.shape[0], 2), rounded[:, width:]], 1)
        limits = torch.ops.quantized.embedding_bag_byte_unpack(limits)  # [R, 2], m and M
        minimum, maximum = limits[:, :1], limits[:, 1:]
        y = torch.ops.onednn.qlinear_pointwise(
            rounded[:, :width],
            1.0,
            0,
            self.packed,
            self.step,
            self.zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        # Elementwise, so that a row's result does not depend on the other rows of the batch; a
        # matrix product may sum in another order for another number of rows.
        y = torch.addcmul(self.bias, y, maximum - minimum).addcmul_(minimum, self.sums)
        y = activated(y, "gelu" if self.activation == "gelu_tanh" else self.activation)
        return y.view(list(x.shape[:-1]) + [y.shape[1]])


class FbgemmInt8Linear(nn.Module):
    """8-bit weights and 7-bit inputs (FBGEMM): twice as fast as float16, and less accurate.

    AVX2 adds two products of bytes in 16 bits, which is enough for 8 bits times 7 bits. Each row of
    inputs is rounded to steps of 1/63 of its largest magnitude.

    Args:
        linear: The trained layer, without a bias.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.packed = torch.ops.quantized.linear_prepack(_quantized(self.weight, self.scale), None)
        self.ready = True
        self.plain = False

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool]:
        """The content of the file: plain 8-bit weights and their scales."""
        return self.weight, self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool]) -> None:
        """Read the content of the file; the weights are not packed yet."""
        self.weight = state[0]
        self.scale = state[1]
        # TorchScript needs a value of the right type until `pack` is called.
        placeholder = _quantized(torch.zeros([1, 1], dtype=torch.int8), torch.ones([1]))
        self.packed = torch.ops.quantized.linear_prepack(placeholder, None)
        self.ready = False
        self.plain = False
        self.training = state[2]

    @torch.jit.export
    def keep_plain(self) -> None:
        """Compute with float16 weights, on a device that has no packed layout."""
        self.weight = (self.weight.to(torch.float32) * self.scale[:, None]).to(torch.float16)
        self.ready = True
        self.plain = True

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and free the plain ones; after this the layer cannot be saved."""
        rows = _quantized(self.weight, self.scale)
        self.weight = torch.empty([0], dtype=torch.int8)
        self.packed = torch.ops.quantized.linear_prepack(rows, None)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        if self.plain:
            return F.linear(x.to(torch.float16), self.weight).to(torch.float32)
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-20)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1.0 / 63.0, 64, self.packed
        )
        return y.mul_(largest)


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights rounded to 8 bits, int8 [out, in], and the scale of each row, float32 [out]."""
    scale = weight.abs().amax(1).clamp(min=1e-20) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _quantized(weight: Tensor, scale: Tensor) -> Tensor:
    """8-bit weights [out, in] and the scale of each row [out] as one quantized tensor."""
    zeros = torch.zeros([scale.shape[0]], dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
