"""GPT-2 as serving runs it: the prefix is read once, then one token per beam and step.

The weights are those of Hugging Face's `GPT2LMHeadModel`. With five beams, copying the key/value
cache would take longer than the products. Two ideas avoid it:

* The prefix's keys and values are the same for all beams of an image, so they are stored once.
* Each step appends N new entries to the cache, one for each beam. A mask records which entries
  belong to the tokens of a beam. Reordering the beams reorders the mask, a few bytes, and not the
  cache.

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.

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
        used: Number of slots that are filled.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], used: int) -> None:
        self.keys = keys
        self.values = values
        self.used = used

    def select(self, order: Tensor) -> None:
        """Keep only some images.

        Only rows whose place changes are copied; see `model.network.search.compacted_order`.

        Args:
            order: int64 [b], the image that comes to each place.
        """
        count = order.shape[0]
        moved = (order != torch.arange(count, device=order.device)).nonzero()[:, 0]
        source = order[moved]
        for parts in (self.keys, self.values):
            for layer in range(len(parts)):
                part = parts[layer]
                part[moved, :, : self.used] = part[source, :, : self.used]
                parts[layer] = part[:count]


class Block(nn.Module):
    """One layer of GPT-2: attention and feed-forward, each after a layer norm.

    The weights of `c_attn` contain attention's scale: its queries are already divided by the square
    root of their width.
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
        """Map hidden states [B, N, E] to queries, keys and values, each [B, H, N, E/H]."""
        batch, length, width = hidden.shape
        packed = self.c_attn(self.ln_1(hidden)).view(
            batch, length, 3, self.heads, width // self.heads
        )
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after attention.

        Args:
            hidden: The layer's input [B, N, E].
            attended: Attention's output [B, H, N, E/H].

        Returns:
            The layer's output [B, N, E].
        """
        hidden = self.attn_proj(attended.transpose(1, 2).reshape(hidden.shape)).add_(hidden)
        return self.mlp_proj(self.c_fc(self.ln_2(hidden))).add_(hidden)


class Decoder(nn.Module):
    """GPT-2 with a preallocated cache; `prefill` once, then `step` per token.

    Args:
        vocabulary: V.
        positions: Length of the longest sequence, the prefix included.
        width: E.
        layers: Number of layers.
        heads: H.
        inner: Width of the feed-forward layer.
        epsilon: The constant of the layer norms.
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
            slots: S, the size of the cache: for the prefix and all entries of later steps.

        Returns:
            The last hidden state [B, 1, E], from which `output` chooses the first token, and the
            cache.
        """
        batch, length, width = prefix.shape
        hidden = prefix + self.wpe.weight[:length]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.blocks:
            query, key, value = block.project(hidden)
            shape = [batch, key.shape[1], slots, key.shape[3]]
            all_keys, all_values = key.new_empty(shape), key.new_empty(shape)
            all_keys[:, :, :length] = key
            all_values[:, :, :length] = value
            keys.append(all_keys)
            values.append(all_values)
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            hidden = block.finish(hidden, attended)
        return self.ln_f(hidden[:, -1:]), Cache(keys, values, length)

    def step(
        self,
        tokens: Tensor,
        position: int,
        cache: Cache,
        mask: Tensor | None,
        depths: Tensor | None = None,
    ) -> Tensor:
        """Read one token per beam, or guesses of one caption, which follow one another.

        Args:
            tokens: int64 [B, N], the tokens chosen last.
            position: Their position in the sequence, the prefix included.
            cache: N of its slots are filled.
            mask: float32 [B, N, used + N]: zero at the slots of the prefix and of the beam's own
                tokens, this one included, and minus infinity at the others. None for one beam,
                which attends to all slots.
            depths: What to add to `position` for each of the N tokens, int64 [N]; None for zeros.

        Returns:
            Hidden states [B, N, E], from which `output` chooses the next tokens.
        """
        start = cache.used
        end = start + tokens.shape[1]
        cache.used = end
        if depths is None:
            hidden = self.wte(tokens) + self.wpe.weight[position]  # [B, N, E]
        else:
            hidden = self.wte(tokens) + self.wpe(depths + position)
        if mask is not None:
            mask = mask.unsqueeze(1).to(cache.keys[0].dtype)  # [B, 1, N, end]
        for layer, block in enumerate(self.blocks):
            query, key, value = block.project(hidden)
            all_keys = cache.keys[layer]
            all_values = cache.values[layer]
            all_keys[:, :, start:end] = key
            all_values[:, :, start:end] = value
            attended = attend(query, all_keys[:, :, :end], all_values[:, :, :end], mask)
            hidden = block.finish(hidden, attended)
        return self.ln_f(hidden)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a step.

    Args:
        query: [B, H, N, E/H], already scaled.
        keys: [B, H, S, E/H].
        values: [B, H, S, E/H].
        mask: [B, 1, N, S], zero or minus infinity; or None.

    Returns:
        [B, H, N, E/H].
    """
    if mask is None or query.dtype != torch.float32:
        return F.scaled_dot_product_attention(query, keys, values, mask, scale=1.0)
    # For a few queries in float32, two plain products take two thirds of the fused operator's time.
    scores = torch.matmul(query, keys.transpose(2, 3)).add_(mask)  # [B, H, N, S]
    return torch.matmul(scores.softmax(-1), values)
