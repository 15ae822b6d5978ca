"""The vision transformer of CLIP and SigLIP as serving runs it: pixels in, a feature out.

The weights are those of Hugging Face's modules (arXiv 2103.00020 and 2303.15343). They are arranged
for few and large products: the patch embedding is a linear layer, queries, keys and values come
from one layer, and activations are part of the layer before them. Parts that the feature does not
depend on are not computed: the last layer at all tokens but the class token, or the whole last
layer where the patches are the feature.

Axes: B batch, P patches, N tokens (the patches and perhaps a class token), H heads, W width,
D width of the pooled feature, S image side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.linear import InnerLinear
from model.network.encoder import CLASS_TOKENS, ClipEncoder, SiglipEncoder
from model.refusal import Refusal

#: CLIP's activation is x sigmoid(1.702 x) = swish(1.702 x) / 1.702: the two factors go into the
#: weights before and after it.
QUICK_GELU = 1.702
#: Hugging Face's names of activations -> names of `model.layers.linear.ACTIVATIONS`.
ACTIVATIONS = {
    "quick_gelu": "swish",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class PatchEmbedding(nn.Module):
    """Cuts the image into squares and maps each to a vector.

    Args:
        convolution: Hugging Face's layer, whose stride is the side of its kernel.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.side = int(convolution.kernel_size[0])
        weight = convolution.weight.flatten(1)  # [W, 3 * side * side]
        self.linear = _linear(weight, convolution.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels [B, 3, S, S] to patches [B, P, W], row by row."""
        grid = pixels.shape[-1] // self.side
        pixels = pixels[:, :, : grid * self.side, : grid * self.side]
        squares = pixels.unflatten(3, (grid, self.side)).unflatten(2, (grid, self.side))
        return self.linear(squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        source: Hugging Face's module, with `fc1` and `fc2`.
        activation: Hugging Face's name of the activation.

    Raises:
        Refusal: The activation is not in `ACTIVATIONS`.
    """

    def __init__(self, source: Any, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise Refusal(f"the encoder's hidden_act is {activation!r}; it must be {known}")
        factor = QUICK_GELU if activation == "quick_gelu" else 1.0
        inner, width = source.fc1.weight.shape
        self.fc1 = InnerLinear(width, inner, ACTIVATIONS[activation])
        self.fc1.load_state_dict({k: v * factor for k, v in source.fc1.state_dict().items()})
        self.fc2 = _linear(source.fc2.weight / factor, source.fc2.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [B, N, W] to [B, N, W]."""
        return self.fc2(self.fc1(hidden))


class Layer(nn.Module):
    """One layer: attention and feed-forward, each after a layer norm.

    Args:
        source: Hugging Face's layer.
        config: Hugging Face's config of the encoder.
    """

    def __init__(self, source: Any, config: Any) -> None:
        super().__init__()
        attention = source.self_attn
        self.heads = config.num_attention_heads
        self.ln_1, self.ln_2 = source.layer_norm1, source.layer_norm2
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv = InnerLinear(config.hidden_size, 3 * config.hidden_size)
        for name in ("weight", "bias"):
            joined = torch.cat([getattr(part, name).detach() for part in parts])
            setattr(self.qkv, name, nn.Parameter(joined))
        self.out = attention.out_proj
        self.mlp = FeedForward(source.mlp, config.hidden_act)

    def forward(self, hidden: Tensor, first_only: bool = False) -> Tensor:
        """Map hidden states [B, N, W] to hidden states [B, N, W].

        Args:
            hidden: [B, N, W].
            first_only: Compute the output of the first token only, [B, 1, W].
        """
        batch, tokens, width = hidden.shape
        packed = self.qkv(self.ln_1(hidden)).view(batch, tokens, 3, self.heads, -1)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, N, W/H]
        if first_only:
            hidden, query = hidden[:, :1], query[:, :, :1]
        attended = F.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.out(attended.transpose(1, 2).flatten(2))
        return hidden + self.mlp(self.ln_2(hidden))


class ClassToken(nn.Module):
    """CLIP's pooling: the hidden state of the class token, normalised and projected.

    Args:
        clip: The encoder.
    """

    def __init__(self, clip: ClipEncoder) -> None:
        super().__init__()
        self.norm, self.project = clip.vision_model.post_layernorm, clip.visual_projection

    def forward(self, hidden: Tensor) -> Tensor:
        """Map the class token's hidden state [B, 1, W] to features [B, D]."""
        return self.project(self.norm(hidden[:, 0]))


class AttentionPool(nn.Module):
    """SigLIP's pooling: a learned query attends to all patches.

    Args:
        tower: Hugging Face's vision transformer.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.norm, self.probe = tower.post_layernorm, tower.head.probe
        self.attention, self.ln = tower.head.attention, tower.head.layernorm
        self.mlp = FeedForward(tower.head.mlp, tower.config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [B, P, W] to features [B, W]."""
        hidden = self.norm(hidden)
        probe = self.probe.expand(hidden.shape[0], -1, -1)  # [B, 1, W]
        attended = self.attention(probe, hidden, hidden, need_weights=False)[0]
        return (attended + self.mlp(self.ln(attended)))[:, 0]


class VisionTransformer(nn.Module):
    """An encoder for one kind of feature.

    Args:
        encoder: The trained encoder; weights that keep their layout are shared with it.
        kind: `pooled` or `patches`, as in `ImageEncoder.encode`.

    Raises:
        Refusal: Its activation is not in `ACTIVATIONS`.
    """

    def __init__(self, encoder: ClipEncoder | SiglipEncoder, kind: str) -> None:
        super().__init__()
        tower: Any = encoder.vision_model
        tower = getattr(tower, "vision_model", tower)  # SigLIP's, in transformers 4
        self.patches = PatchEmbedding(tower.embeddings.patch_embedding)
        self.positions = tower.embeddings.position_embedding.weight  # [N, W]
        self.layers = nn.ModuleList(Layer(each, tower.config) for each in tower.encoder.layers)
        self.class_token: nn.Parameter | None = None
        self.pre_norm: nn.Module = nn.Identity()
        pool: nn.Module
        if isinstance(encoder, ClipEncoder):
            self.class_token = tower.embeddings.class_embedding  # [W]
            self.pre_norm = tower.pre_layrnorm
            pool = ClassToken(encoder)
        else:
            pool = AttentionPool(tower)
        self.pool = pool if kind == "pooled" else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels [B, 3, S, S] to features [B, D], or to patches [B, P, W]."""
        hidden = self.patches(pixels)
        if self.class_token is not None:
            token = self.class_token.expand(hidden.shape[0], 1, -1)
            hidden = torch.cat([token, hidden], dim=1)
        hidden = self.pre_norm(hidden + self.positions)  # [B, N, W]
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden)
        if self.pool is not None:
            return self.pool(last(hidden, first_only=self.class_token is not None))
        return hidden if self.class_token is None else hidden[:, CLASS_TOKENS:]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of a weight [out, in] and a bias [out]."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight.detach())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    return linear
