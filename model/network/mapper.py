"""Mappers: features of an image in, a prefix of GPT-2 embeddings out.

`mlp` and `transformer` are the mappers of the paper (Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix
for Image Captioning", arXiv 2111.09734, section 3.2); its code also has `linear`. They read one
feature of the whole image. Their parameters have the names of the published checkpoints.

`patch` reads a feature of each patch, as LLaVA 1.5 does (Liu, Li, Li, Lee: "Improved Baselines with
Visual Instruction Tuning", arXiv 2310.03744, section 3.2).

Axes: B batch, K prefix length, C clip length, D CLIP width, E GPT-2 width, P patches, L = C + K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import MapperConfig
from model.refusal import Refusal


class LinearMapper(nn.Module):
    """One linear layer from the feature to all K prefix vectors."""

    def __init__(self, feature_width: int, width: int, prefix_length: int) -> None:
        super().__init__()
        self.prefix_length = prefix_length
        self.width = width
        self.linear = nn.Linear(feature_width, prefix_length * width)

    def forward(self, feature: Tensor) -> Tensor:
        """Map features [B, D] to prefixes [B, K, E]."""
        return self.linear(feature).view(-1, self.prefix_length, self.width)


class MLPMapper(nn.Module):
    """Two linear layers with tanh between them: the paper's mapper for a fine-tuned GPT-2."""

    def __init__(self, feature_width: int, width: int, prefix_length: int) -> None:
        super().__init__()
        self.prefix_length = prefix_length
        self.width = width
        out = prefix_length * width
        self.model = nn.Sequential(
            nn.Linear(feature_width, out // 2), nn.Tanh(), nn.Linear(out // 2, out)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map features [B, D] to prefixes [B, K, E]."""
        return self.model(feature).view(-1, self.prefix_length, self.width)


class TransformerMapper(nn.Module):
    """A transformer over C vectors made from the feature and K learned constants.

    The paper's mapper for a frozen GPT-2. The outputs at the constants are the prefix; there,
    attention reads the vectors of the feature.
    """

    def __init__(
        self,
        feature_width: int,
        width: int,
        prefix_length: int,
        clip_length: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.clip_length = clip_length
        self.width = width
        self.linear = nn.Linear(feature_width, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))
        self.transformer = _Stack(width, heads, layers)

    def forward(self, feature: Tensor) -> Tensor:
        """Map features [B, D] to prefixes [B, K, E]."""
        clip = self.linear(feature).view(-1, self.clip_length, self.width)  # [B, C, E]
        constants = self.prefix_const.expand(clip.shape[0], -1, -1)  # [B, K, E]
        hidden = self.transformer(torch.cat([clip, constants], dim=1))  # [B, C+K, E]
        return hidden[:, self.clip_length :]  # [B, K, E]


class PatchMapper(nn.Module):
    """Two linear layers with GELU between them, which make a prefix vector of each patch.

    The patches are hidden states of the encoder, whose magnitudes differ by far, so each is
    normalised first.
    """

    def __init__(self, feature_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_width)
        self.fc1 = nn.Linear(feature_width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, feature: Tensor) -> Tensor:
        """Map patches [B, P, D] to prefixes [B, P, E]."""
        return self.fc2(F.gelu(self.fc1(self.norm(feature))))


class _Attention(nn.Module):
    """Full self-attention; one layer gives keys and values, as (2, heads, width of a head)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        shape = (batch, length, 2, self.heads, width // self.heads)
        query = self.to_queries(hidden).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = self.to_keys_values(hidden).view(shape).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, heads, L, E/heads]
        return self.project(attended.transpose(1, 2).reshape(batch, length, width))


class _FeedForward(nn.Module):
    """Two linear layers with ReLU between them; the inner width is twice the outer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(hidden)))


class _Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _FeedForward(width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden))
        return hidden + self.mlp(self.norm2(hidden))


class _Stack(nn.Module):
    """The layers of the transformer, named as in the published checkpoints."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def build_mapper(config: MapperConfig, feature_width: int, width: int) -> nn.Module:
    """A mapper with random weights.

    Args:
        config: Kind and sizes.
        feature_width: D, the width of the CLIP feature, or of one patch.
        width: E, the width of GPT-2.

    Returns:
        A module that maps features [B, D], or [B, P, D] for `patch`, to prefixes [B, K, E].

    Raises:
        Refusal: An unknown kind, or heads that do not divide the width.
    """
    if config.kind == "linear":
        return LinearMapper(feature_width, width, config.prefix_length)
    if config.kind == "mlp":
        return MLPMapper(feature_width, width, config.prefix_length)
    if config.kind == "transformer":
        if width % config.heads:
            raise Refusal(
                f"mapper.heads is {config.heads}, which does not divide GPT-2's width {width}; "
                "choose a divisor of the width"
            )
        return TransformerMapper(
            feature_width,
            width,
            config.prefix_length,
            config.clip_length,
            config.layers,
            config.heads,
        )
    if config.kind == "patch":
        return PatchMapper(feature_width, width)
    raise Refusal(f"mapper.kind is {config.kind!r}; it must be mlp, transformer, linear or patch")
