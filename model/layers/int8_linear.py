"""Linear layers with 8-bit weights and inputs of 8 or 7 bits; saved like `model.layers.linear`'s.

Every row of inputs is rounded by itself, so that its result does not depend on which other rows are
in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.layers.linear import activated, activation_of, bias_of


class Int8Linear(nn.Module):
    """8-bit weights and inputs, for AVX-512 (oneDNN); products are summed exactly, then scaled.

    Each row of inputs is rounded to 255 steps between its least m and its largest: x = s q + m with
    whole q, so y = s (q W') + m (1 W') + b. GELU is the exact one here: its approximation by tanh
    is within 0.0005 of it, which is a tenth of a step of the bytes that it is rounded to next, and
    takes twice the time.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.bias = bias_of(linear)
        self.activation = activation_of(linear)
        self._lay_out()

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, str, bool]:
        """What the file holds: plain 8-bit weights, their scales, and the bias."""
        return self.weight, self.scale, self.bias, self.activation, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, str, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.scale = state[1]
        self.bias = state[2]
        self.activation = state[3]
        empty = torch.empty([0])
        self.packed, self.step, self.added, self.zeros, self.ends = (
            empty,
            empty,
            empty,
            empty,
            empty,
        )
        self.ready = False
        self.training = state[4]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        self._lay_out()
        self.weight = torch.empty([0], dtype=torch.int8)

    @torch.jit.export
    def _lay_out(self) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
        self.step = self.scale / 255  # of rows from 0 to 1
        ones = self.weight.sum(1, dtype=torch.int32) * self.scale  # 1 W'
        self.added = torch.stack([ones, self.bias])  # [2, out]
        self.zeros = torch.zeros([self.scale.shape[0]], dtype=torch.int32)
        self.ends = torch.tensor([[0, 255]], dtype=torch.uint8)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        width = x.shape[-1]
        # Meant for embedding tables, and the one operator that rounds rows in a single pass. Behind
        # each row's bytes it puts 8 that say what they stand for.
        rounded = torch.ops.quantized.embedding_bag_byte_prepack(x.reshape(-1, width))
        ends = torch.cat([self.ends.expand(rounded.shape[0], 2), rounded[:, width:]], 1)
        ends = torch.ops.quantized.embedding_bag_byte_unpack(ends)  # [R, 2], least and largest
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
        ).mul_(ends[:, 1:] - ends[:, :1])
        ends[:, 1] = 1.0
        y.addmm_(ends, self.added)
        y = activated(y, "gelu" if self.activation == "gelu_tanh" else self.activation)
        return y.view(list(x.shape[:-1]) + [y.shape[1]])


class FbgemmInt8Linear(nn.Module):
    """8-bit weights and 7-bit inputs (FBGEMM): twice as fast as float16, for where rough will do.

    AVX2 adds the products of two pairs of bytes in 16 bits, which has room for 8 bits by 7. Each
    row of inputs is rounded to steps of a 63rd of its largest magnitude.

    Args:
        linear: The trained layer, without a bias.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.packed = torch.ops.quantized.linear_prepack(_quantized(self.weight, self.scale), None)
        self.ready = True

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool]:
        """What the file holds: plain 8-bit weights and their scales."""
        return self.weight, self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.scale = state[1]
        none = _quantized(torch.zeros([1, 1], dtype=torch.int8), torch.ones([1]))
        self.packed = torch.ops.quantized.linear_prepack(none, None)
        self.ready = False
        self.training = state[2]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        rows = _quantized(self.weight, self.scale)
        self.weight = torch.empty([0], dtype=torch.int8)
        self.packed = torch.ops.quantized.linear_prepack(rows, None)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-20)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1.0 / 63.0, 64, self.packed
        )
        return y.mul_(largest)


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and float32 [out] with weight = int8 * scale, as near as 255 steps allow."""
    scale = weight.abs().amax(1).clamp(min=1e-20) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _quantized(weight: Tensor, scale: Tensor) -> Tensor:
    """8-bit weights [out, in] and a scale for each row [out], as a quantized tensor."""
    zeros = torch.zeros([scale.shape[0]], dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
