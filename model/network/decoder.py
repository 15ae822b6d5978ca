"""GPT-2 as serving runs it: a prefix read once, then one token per beam and step.

The same weights as Hugging Face's `GPT2LMHeadModel`, laid out for decoding. Two ideas keep the
key/value cache from being copied, which at five beams costs more than the mathematics:

* the prefix's keys and values are the same for all beams of an image and are stored once;
* beams are followed by ancestry: every step writes its N new entries behind the others, and a
  mask says which of them a beam descends from. Reordering beams reorders that mask, a few bytes,
  and never the cache.

TorchScript compiles this file as it is; it also runs eagerly.

Axes: B batch, N beams, K prefix length, S cache slots (K + N * steps), H heads, E width,
V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.linear import InnerLinear
from model.layers.output_layer import OutputLayer


class Cache:
    """Keys and values of all layers, preallocated for a whole caption.

    Attributes:
        keys: Per layer [B, H, S, E/H].
        values: Per layer [B, H, S, E/H].
        used: Slots filled so far.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], used: int) -> None:
        self.keys = keys
        self.values = values
        self.used = used

    def select(self, order: Tensor) -> None:
        """Go on with the images [b] alone, in this order; only those that move are copied."""
        count = order.shape[0]
        moved = (order != torch.arange(count, device=order.device)).nonzero()[:, 0]
        source = order[moved]
        for parts in (self.keys, self.values):
            for layer in range(len(parts)):
                part = parts[layer]
                part[moved, :, : self.used] = part[source, :, : self.used]
                parts[layer] = part[:count]


class Block(nn.Module):
    """One layer of GPT-2: attention and feed-forward, each behind a layer norm.

    Queries come out of `c_attn` already divided by the square root of their width.
    """

    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width, eps=epsilon)
        self.c_attn = InnerLinear(width, 3 * width)
        self.attn_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps=epsilon)
        self.c_fc = InnerLinear(width, inner, "gelu_tanh")
        self.mlp_proj = nn.Linear(inner, width)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, N, E/H] of hidden states [B, N, E]."""
        batch, length, width = hidden.shape
        packed = self.c_attn(self.ln_1(hidden)).view(
            batch, length, 3, self.heads, width // self.heads
        )
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention: hidden states [B, N, E] from its output [B, H, N, E/H]."""
        hidden = self.attn_proj(mixed.transpose(1, 2).reshape(hidden.shape)).add_(hidden)
        return self.mlp_proj(self.c_fc(self.ln_2(hidden))).add_(hidden)


class Decoder(nn.Module):
    """GPT-2 with a preallocated cache; `prefill` once, then `step` per token.

    Args:
        vocabulary: V.
        positions: Longest sequence, prefix included.
        width: E.
        layers: Number of layers.
        heads: H.
        inner: Width of the feed-forward layer.
        epsilon: Of the layer norms.
    """

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        epsilon: float,
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads, inner, epsilon) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width, eps=epsilon)
        self.output = OutputLayer(self.wte)

    def prefill(self, prefix: Tensor, slots: int) -> tuple[Tensor, Cache]:
        """Read the prefix.

        Args:
            prefix: [B, K, E].
            slots: S, room for the prefix and everything that follows.

        Returns:
            Hidden state [B, 1, E] that `output` chooses the first token from, and the cache.
        """
        batch, length, width = prefix.shape
        hidden = prefix + self.wpe.weight[:length]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.blocks:
            query, key, value = block.project(hidden)
            room = [batch, key.shape[1], slots, key.shape[3]]
            all_keys, all_values = key.new_empty(room), key.new_empty(room)
            all_keys[:, :, :length] = key
            all_values[:, :, :length] = value
            keys.append(all_keys)
            values.append(all_values)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            hidden = block.finish(hidden, mixed)
        return self.ln_f(hidden[:, -1:]), Cache(keys, values, length)

    def step(self, tokens: Tensor, position: int, cache: Cache, mask: Tensor | None) -> Tensor:
        """Read one token per beam.

        Args:
            tokens: [B, N] ids of the tokens chosen last.
            position: Their place in the sequence, the prefix counted.
            cache: Gets N more slots.
            mask: [B, N, used + N], zero at the slots that each beam descends from, its own new
                one included, and minus infinity at the others; None if every beam sees all (one
                beam).

        Returns:
            Hidden states [B, N, E] that `output` chooses the next tokens from.
        """
        start = cache.used
        end = start + tokens.shape[1]
        cache.used = end
        hidden = self.wte(tokens) + self.wpe.weight[position]  # [B, N, E]
        if mask is not None:
            mask = mask.unsqueeze(1).to(cache.keys[0].dtype)  # [B, 1, N, end]
        for layer, block in enumerate(self.blocks):
            query, key, value = block.project(hidden)
            all_keys = cache.keys[layer]
            all_values = cache.values[layer]
            all_keys[:, :, start:end] = key
            all_values[:, :, start:end] = value
            mixed = attend(query, all_keys[:, :, :end], all_values[:, :, :end], mask)
            hidden = block.finish(hidden, mixed)
        return self.ln_f(hidden)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of N scaled queries [B, H, N, E/H] to S slots; `step`'s mask as [B, 1, N, S]."""
    if mask is None or query.dtype != torch.float32:
        return F.scaled_dot_product_attention(query, keys, values, mask, scale=1.0)
    # A few queries in float32: two plain products take two thirds of the fused operator's time.
    scores = torch.matmul(query, keys.transpose(2, 3)).add_(mask)  # [B, H, N, S]
    return torch.matmul(scores.softmax(-1), values)
