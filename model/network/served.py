"""The captioner as it is served: encoder, mapper and search in one module.

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.

Axes: B batch, D CLIP width, E GPT-2 width, K prefix length, S image side, P image patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.search import Search
from model.options import GenerationOptions

_DEFAULTS = GenerationOptions()


class ServedCaptioner(nn.Module):
    """Encoder, mapper and search.

    Its methods take the generation options as plain scalars, in the order of
    `model.options.OPTIONS`: TorchScript cannot take a dataclass from Python. In place of the seed
    they take the random numbers that it stands for, and in place of the prompt its tokens; these
    two and `max_characters` come last.

    Args:
        encoder: Maps pixels to features.
        mapper: Maps features to prefixes.
        search: Maps prefixes to captions.
        normalize_feature: Divide each feature by its L2 norm before the mapper.
    """

    def __init__(
        self, encoder: nn.Module, mapper: nn.Module, search: Search, normalize_feature: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.mapper = mapper
        self.search = search
        self.normalize_feature = normalize_feature

    @torch.jit.export
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] to features [B, D] or [B, P, D]."""
        return self.encoder(pixels)

    @torch.jit.export
    def prefix(self, features: Tensor) -> Tensor:
        """Features [B, D] or [B, P, D] to prefixes [B, K, E]."""
        if self.normalize_feature:
            features = F.normalize(features, dim=-1)
        return self.mapper(features)

    @torch.jit.export
    def caption(
        self,
        features: Tensor,
        num_beams: int,
        num_captions: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
        repetition_penalty: float,
        no_repeat_ngram_size: int,
        temperature: float,
        top_k: int,
        top_p: float,
        chances: Tensor | None,
        prompt: Tensor | None,
        max_characters: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features to token ids, lengths, log-probabilities, qualities; see `Search.forward`."""
        return self.search(
            self.prefix(features),
            num_beams,
            num_captions,
            max_tokens,
            min_tokens,
            length_penalty,
            repetition_penalty,
            no_repeat_ngram_size,
            temperature,
            top_k,
            top_p,
            chances,
            prompt,
            max_characters,
        )

    @torch.jit.export
    def score(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T] of given tokens [B, T], each after those before it, in nats."""
        return self.search.score(self.prefix(features), tokens)

    def forward(
        self,
        pixels: Tensor,
        num_beams: int = _DEFAULTS.num_beams,
        num_captions: int = _DEFAULTS.num_captions,
        max_tokens: int = _DEFAULTS.max_tokens,
        min_tokens: int = _DEFAULTS.min_tokens,
        length_penalty: float = _DEFAULTS.length_penalty,
        repetition_penalty: float = _DEFAULTS.repetition_penalty,
        no_repeat_ngram_size: int = _DEFAULTS.no_repeat_ngram_size,
        temperature: float = _DEFAULTS.temperature,
        top_k: int = _DEFAULTS.top_k,
        top_p: float = _DEFAULTS.top_p,
        chances: Tensor | None = None,
        prompt: Tensor | None = None,
        max_characters: int = _DEFAULTS.max_characters,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels [B, 3, S, S] to token ids, lengths, log-probabilities and qualities."""
        return self.caption(
            self.encode(pixels),
            num_beams,
            num_captions,
            max_tokens,
            min_tokens,
            length_penalty,
            repetition_penalty,
            no_repeat_ngram_size,
            temperature,
            top_k,
            top_p,
            chances,
            prompt,
            max_characters,
        )
