"""Linear layers as serving runs them: weights packed for the processor once, when loaded.

A decode step multiplies 40 rows or fewer by every weight of GPT-2, so it costs what reading and
multiplying those weights costs. oneDNN multiplies twice as fast from weights that are laid out in
its own blocks, and faster again from narrower ones. Three precisions:

    fp32   weights and products as trained
    bf16   weights and inputs rounded to bfloat16, sums in float32
    int8   weights rounded to 8 bits, a scale for each output; inputs to 8 bits, a scale for each
           row (as LLM.int8(), arXiv 2208.07339, section 2, without its outliers): a row's result
           does not depend on which other rows are in the batch

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
PRECISIONS = ("fp32", "bf16", "int8")


class GeluLinear(nn.Linear):
    """A linear layer and the GELU behind it, in GPT-2's approximation by tanh.

    One module, so that the multiplication can apply it to its sums before it rounds them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return F.gelu(F.linear(input, self.weight, self.bias), approximate="tanh")


class AfterGelu(nn.Linear):
    """A linear layer whose inputs come out of GELU, so that hardly any is negative.

    Rounded to 8 bits, its inputs have 223 steps for what is positive instead of 127.
    """


class PackedLinear(nn.Module):
    """y = x W' + b, and GELU of it for a `GeluLinear`, in the type of its weights.

    Sums are float32, and GELU is applied to them.

    Args:
        linear: The trained layer; weights that keep their type are shared, not copied.
        dtype: float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = _bias(linear).to(dtype)
        self.gelu = isinstance(linear, GeluLinear)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.ready = True

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, bool, bool]:
        """What the file holds: plain weights."""
        return self.weight, self.bias, self.gelu, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, bool, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.bias = state[1]
        self.gelu = state[2]
        self.packed = torch.empty([0])
        self.ready = False
        self.training = state[3]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.weight = torch.empty([0])
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        after = "gelu" if self.gelu else "none"
        return torch.ops.mkldnn._linear_pointwise(
            x.to(self.bias.dtype), self.packed, self.bias, after, [], "tanh"
        ).to(x.dtype)


class Int8Linear(nn.Module):
    """The same with 8-bit weights and inputs; products are summed exactly, then scaled.

    GELU is the exact one here: its approximation by tanh is within 0.0005 of it, which is a tenth
    of a step of the bytes that it is rounded to next, and takes twice the time.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scale = int8_rows(linear.weight.detach())
        self.bias = torch.empty(0) if linear.bias is None else linear.bias.detach()
        self.gelu = isinstance(linear, GeluLinear)
        self.zero = 32 if isinstance(linear, AfterGelu) else 128  # the byte that stands for 0
        self._lay_out()

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, bool, int, bool]:
        """What the file holds: plain 8-bit weights, their scales, and the bias."""
        return self.weight, self.scale, self.bias, self.gelu, self.zero, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, bool, int, bool]) -> None:
        """Take them from the file, not packed yet."""
        self.weight = state[0]
        self.scale = state[1]
        self.bias = state[2]
        self.gelu = state[3]
        self.zero = state[4]
        empty = torch.empty([0])
        self.packed, self.step, self.zeros, self.ends = empty, empty, empty, empty
        self.least = 0.0
        self.ready = False
        self.training = state[5]

    @torch.jit.export
    def pack(self) -> None:
        """Pack the weights and let the plain ones go: from now on the layer cannot be saved."""
        self._lay_out()
        self.weight = torch.empty([0], dtype=torch.int8)

    @torch.jit.export
    def _lay_out(self) -> None:
        above = 255 - self.zero  # the byte of a row's largest
        self.packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
        self.step = self.scale / above
        self.zeros = torch.zeros([self.scale.shape[0]], dtype=torch.int32)
        self.ends = torch.tensor([[-self.zero / above, 1.0]])  # of a row whose largest is 1
        # No row's largest counts as less. GELU's least value, -0.17, has to have a byte.
        self.least = 1e-4 if self.zero == 128 else 0.1701 * above / self.zero
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [..., in] to float32 [..., out]."""
        if not self.ready:
            self.pack()
        width = x.shape[-1]
        rows = x.reshape(-1, width)
        largest = rows.abs() if self.zero == 128 else rows
        largest = largest.amax(-1, keepdim=True).clamp_(min=self.least)  # [R, 1]
        # Meant for embedding tables, and the one operator that rounds rows in a single pass. Behind
        # each row's bytes it puts 8 that say again what they stand for.
        rounded = torch.ops.quantized.embedding_bag_byte_prepack_with_rowwise_min_max(
            rows, largest * self.ends
        )
        y = torch.ops.onednn.qlinear_pointwise(
            rounded[:, :width],
            1.0,
            self.zero,
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
        ).mul_(largest)
        if self.bias.numel() > 0:
            y.add_(self.bias)
        if self.gelu:
            y = F.gelu(y)
        return y.view(list(x.shape[:-1]) + [y.shape[1]])


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
    """Replace linear layers by this precision's, in place and all the way down.

    These are `nn.Linear`, `GeluLinear` and `AfterGelu`. Other subclasses are left alone: attention
    layers of torch reach into theirs for the weights.

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
        if isinstance(child, nn.Linear) and type(child) in (nn.Linear, GeluLinear, AfterGelu):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                # Compiled at once: a trace cannot look into these operators' arguments.
                setattr(module, name, torch.jit.script(_packed(child, precision)))
        else:
            pack_linears(child, precision)
