"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so it costs what reading and
multiplying those weights costs. Libraries multiply twice as fast from weights that are laid out in
their own blocks, and faster again from narrower ones. Four precisions:

    fp32   weights and products as trained
    fp16   weights rounded to float16; inputs, products and sums in float32 (FBGEMM)
    bf16   weights and inputs rounded to bfloat16, sums in float32
    int8   weights rounded to 8 bits, a scale for each output; inputs to 8 bits, a range for each
           row (as LLM.int8(), arXiv 2208.07339, section 2, without its outliers): a row's result
           does not depend on which other rows are in the batch

With AMX, oneDNN sums large batches in another order than small ones, which bf16 outputs show by one
rounding step now and then.

A packed layout belongs to one processor, so the file holds the plain weights of its precision.
Whoever loads it packs one layer after another (`pack`), so that memory never holds all weights
twice; a layer that was forgotten packs itself when it is first used. TorchScript compiles this file
as it is.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.refusal import Refusal

#: From exact to narrow.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
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
        self.bias = _bias(linear).to(dtype)
        self.inner = isinstance(linear, InnerLinear)
        self.activation = _activation(linear)
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
        self.bias = _bias(linear)
        self.activation = _activation(linear)
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


class Int8Linear(nn.Module):
    """The same with 8-bit weights and inputs; products are summed exactly, then scaled.

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
        self.bias = _bias(linear)
        self.activation = _activation(linear)
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


class RoughLinear(nn.Module):
    """8-bit weights and 7-bit inputs (FBGEMM): twice as fast as float16, for where rough will do.

    AVX2 adds the products of two pairs of bytes in 16 bits, which has room for 8 bits by 7. Each
    row of inputs is rounded to steps of a 63rd of its largest magnitude.

    Args:
        linear: The trained layer; has no bias.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("a rough layer has no bias")
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
        self.packed = torch.ops.quantized.linear_prepack(_quantized(self.weight, self.scale), None)
        self.weight = torch.empty([0], dtype=torch.int8)
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


def hush() -> None:
    """Let torch say where nobody hears it that quantized tensors are deprecated: it does so once.

    A `RoughLinear` makes one for its packing; said by TorchScript, it would be a line in every log.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _quantized(torch.zeros([1, 1], dtype=torch.int8), torch.ones([1]))


def _quantized(weight: Tensor, scale: Tensor) -> Tensor:
    """8-bit weights [out, in] and a scale for each row [out], as a quantized tensor."""
    zeros = torch.zeros([scale.shape[0]], dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)


def rough(linear: nn.Linear, precision: str) -> nn.Module:
    """An 8-bit layer for the processors that a precision is for, of a layer without a bias.

    Raises:
        Refusal: A precision that this processor has not.
    """
    _check(precision)
    hush()
    return _scripted(RoughLinear(linear) if precision == "fp16" else Int8Linear(linear))


def _packed(linear: nn.Linear, precision: str) -> nn.Module:
    if precision == "int8":
        return Int8Linear(linear)
    if precision == "fp16":
        return Float16Linear(linear)
    return PackedLinear(linear, torch.bfloat16 if precision == "bf16" else torch.float32)


def _bias(linear: nn.Linear) -> Tensor:
    """The layer's bias [out]; zeros if it has none."""
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def _activation(linear: nn.Linear) -> str:
    """What the layer applies to its sums."""
    return linear.activation if isinstance(linear, InnerLinear) else "none"


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and float32 [out] with weight = int8 * scale, as near as 255 steps allow."""
    scale = weight.abs().amax(1).clamp(min=1e-20) / 127.0
    return (weight / scale[:, None]).round().to(torch.int8), scale


def why_not(precision: str) -> str:
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
    return tuple(precision for precision in PRECISIONS if not why_not(precision))


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


def _check(precision: str) -> None:
    """Refuse a precision that there is not, or that this processor has not."""
    if precision not in PRECISIONS:
        raise Refusal(f"precision is {precision!r}; it must be {', '.join(PRECISIONS)}")
    if reason := why_not(precision):
        raise Refusal(f"{reason}; export with export.precision=fp32")


def _scripted(layer: nn.Module) -> nn.Module:
    """A packed layer, compiled at once: a trace cannot look into its operators' arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(layer)
