"""The modules that are exported as programs, and the decoder that a search runs over them.

`torch.export` records a module as one graph without branches, whose sizes may vary. So the graph of
the decoder is one reading of N words behind those in the cache: the prefix, the tokens chosen last,
or the tokens of a given caption. The weights are then in one file once.

Axes: B batch, N words that are read, K prefix length, S cache slots that are filled, E width,
H heads, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.linear import InnerLinear, activated
from model.network.decoder import Cache, Decoder, attend


class NarrowLinear(nn.Module):
    """y = activation(x W' + b) with weights and inputs in bfloat16, for any device.

    It is `model.layers.linear.PackedLinear` without packing: inner layers give bfloat16, the others
    float32. The product is rounded to bfloat16 before the activation; a packed layer rounds after
    it.

    Args:
        linear: The trained layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().to(torch.bfloat16))
        bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
        self.bias = nn.Parameter(bias.to(torch.bfloat16))
        self.inner = isinstance(linear, InnerLinear)
        self.activation = linear.activation if isinstance(linear, InnerLinear) else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        y = F.linear(x.to(torch.bfloat16), self.weight, self.bias)
        y = activated(y, self.activation)
        return y if self.inner else y.to(torch.float32)


class Reading(nn.Module):
    """The graph of the decoder: reads words behind those in the cache.

    Args:
        decoder: Its layers are shared; they are not packed.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.wpe, self.ln_f = decoder.wpe, decoder.ln_f
        self.blocks: Any = decoder.blocks

    def forward(
        self,
        words: Tensor,
        positions: Tensor,
        slots: Tensor,
        mask: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> Tensor:
        """Hidden states of words.

        Args:
            words: Embeddings float32 [B, N, E].
            positions: int64 [N], where they stand in the sequence.
            slots: int64 [N], where their keys and values go in the cache.
            mask: [B, N, S] in the type of the cache, zero at the slots that a word attends to and
                minus infinity at the others.
            keys: Per layer [B, H, S, E/H]; the slots of the words are written.
            values: The same.

        Returns:
            float32 [B, N, E], after the last layer norm.
        """
        hidden = words + self.wpe(positions)
        mask = mask.unsqueeze(1)  # [B, 1, N, S]
        for layer, block in enumerate(self.blocks):
            query, key, value = block.project(hidden)
            keys[layer].index_copy_(2, slots, key)
            values[layer].index_copy_(2, slots, value)
            hidden = block.finish(hidden, attend(query, keys[layer], values[layer], mask))
        return self.ln_f(hidden)


class ProgramHead(nn.Module):
    """The exported output layer for hidden states in any shape; the program takes rows of them.

    Args:
        program: Maps [R, E] to [R, V].
    """

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., E] to logits [..., V]."""
        return self.program.forward(hidden.flatten(0, -2)).unflatten(0, hidden.shape[:-1])


class ProgramDecoder(nn.Module):
    """A `model.network.decoder.Decoder` whose layers are the exported `Reading`.

    Args:
        reading: The program.
        wte: The token embedding.
        output: The output layer, with the methods of `model.layers.output_layer.OutputLayer`.
        layers: Number of layers.
        heads: H.
        dtype: Of the cache.
    """

    def __init__(
        self,
        reading: Any,
        wte: nn.Embedding,
        output: nn.Module,
        layers: int,
        heads: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.reading, self.wte, self.output = reading, wte, output
        self.layers, self.heads, self.dtype = layers, heads, dtype

    def prefill(self, prefix: Tensor, slots: int) -> tuple[Tensor, Cache]:
        """Read the prefix; see `Decoder.prefill`."""
        batch, length, width = prefix.shape
        shape = [batch, self.heads, slots, width // self.heads]
        keys, values = (
            [prefix.new_empty(shape, dtype=self.dtype) for _ in range(self.layers)]
            for _ in range(2)
        )
        later = prefix.new_full([length, length], float("-inf")).triu(1)
        cache = Cache(keys, values, 0)
        places = torch.arange(length, device=prefix.device)
        hidden = self._read(prefix, places, cache, later.expand(batch, -1, -1))
        return hidden[:, -1:], cache

    def step(
        self,
        tokens: Tensor,
        position: int,
        cache: Cache,
        mask: Tensor | None,
        depths: Tensor | None = None,
    ) -> Tensor:
        """Read tokens; see `Decoder.step`."""
        batch, count = tokens.shape
        if mask is None:
            mask = cache.keys[0].new_zeros([batch, count, cache.used + count])
        if depths is None:
            depths = torch.zeros([count], dtype=torch.int64, device=tokens.device)
        return self._read(self.wte(tokens), depths + position, cache, mask)

    def _read(self, words: Tensor, positions: Tensor, cache: Cache, mask: Tensor) -> Tensor:
        start, end = cache.used, cache.used + words.shape[1]
        cache.used = end
        # Past the checks of sizes that a call makes: they would take up to 10 ms of every step.
        return self.reading.forward(
            words,
            positions,
            torch.arange(start, end, device=words.device),
            mask.to(self.dtype),
            [each[:, :, :end] for each in cache.keys],
            [each[:, :, :end] for each in cache.values],
        )
