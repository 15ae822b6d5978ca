"""ClipCap as it is trained: CLIP encoder -> mapper -> GPT-2.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734, figure 2.
The encoder comes from another library (see `model.network.encoder`), GPT-2 from Hugging Face.
Serving runs the same weights through `model.network.decoder` and `model.network.search`.

Axes: B batch, K prefix length, T caption tokens, D CLIP width, E GPT-2 width, V vocabulary,
P image patches, U images. A feature is [D], or [P, D] for the patch mapper, where K is P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from model.config import CaptionerConfig
from model.network.encoder import ImageEncoder, build_encoder
from model.network.mapper import build_mapper

#: Label of a position that is not a token of the caption; it is left out of the loss.
IGNORED = -100


class ClipCap(nn.Module):
    """CLIP encoder, mapper and language model, with the caption loss.

    Args:
        config: The sizes; the weights are random until they are loaded.

    Raises:
        Refusal: The config names an unknown encoder or mapper, or sizes that do not fit.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.clip: ImageEncoder | None = None
        if config.clip is not None:
            self.clip = build_encoder(config.clip)
        self.gpt2 = GPT2LMHeadModel(GPT2Config(**config.gpt2))
        if self.gpt2.config.activation_function == "gelu_new":
            # Hugging Face computes it in eight steps; in one it is the same but for rounding.
            blocks: Any = self.gpt2.transformer.h
            for block in blocks:
                block.mlp.act = nn.GELU(approximate="tanh")
        width = self.gpt2.config.n_embd
        self.mapper = build_mapper(config.mapper, config.feature_width, width)

    def encode(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels [B, 3, S, S] to the mapper's features [B, D] or [B, P, D]."""
        assert self.clip is not None, "this captioner was loaded without its encoder"
        return self.clip.encode(pixels, self.config.mapper.feature_kind)

    def prefix(self, features: Tensor) -> Tensor:
        """Map features [B, D] or [B, P, D] to prefixes [B, K, E]."""
        if self.config.normalize_feature:
            features = F.normalize(features, dim=-1)
        return self.mapper(features)

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        word_dropout: float = 0.0,
        prior: Callable[[Tensor, Tensor], Tensor] | None = None,
        owners: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The caption loss: mean cross-entropy of a caption token, in nats.

        Without `prior` this is the mean negative log-likelihood. Padding stands at the right, so
        causal attention alone hides it from the tokens, and vocabulary logits are computed for
        tokens only. With `owners` the prefix of an image is read once for all of its captions; that
        saves most of the time where the prefix is long.

        Args:
            features: float32 [U, D] or [U, P, D], as `encode` gives them.
            labels: int64 [B, T]: token ids, the end token included, then `IGNORED`. A token that is
                `IGNORED` among the others is neither read nor learned.
            word_dropout: Fraction of the input tokens, from 0 to 1, whose embedding is replaced by
                zeros. The next token is then learned from the image and less from the tokens before
                it (arXiv 1511.06349, section 3.1).
            prior: Maps the logits [n, V] of the n labels that are not ignored, and all labels
                [B, T], to the logits that the loss takes; see
                `training.captioner.objectives.pair_prior`.
            owners: int64 [B], the image of each caption, from 0 to U - 1; None where U is B.
            label_smoothing: Share, from 0 to 1, of the loss that is the mean cross-entropy of all
                words of the vocabulary (arXiv 1512.00567, section 7). It reads the logits without
                the prior: else it would undo the prior, by which some words hardly ever follow.

        Returns:
            The loss, float32 [].
        """
        logits = self.token_logits(features, labels, word_dropout, owners)
        adjusted = logits if prior is None else prior(logits, labels)
        loss = F.cross_entropy(adjusted, labels[labels != IGNORED])
        if label_smoothing > 0:
            uniform = -logits.log_softmax(-1).mean()
            loss = (1 - label_smoothing) * loss + label_smoothing * uniform
        return loss

    def token_logits(
        self,
        features: Tensor,
        labels: Tensor,
        word_dropout: float = 0.0,
        owners: Tensor | None = None,
    ) -> Tensor:
        """Logits of every given token that is not `IGNORED`, row by row, float32 [n, V].

        The log-probability of a given caption is the sum of their log-softmax at its labels. The
        arguments are those of `forward`.
        """
        prefix = self.prefix(features)  # [U, K, E]
        tokens = labels.clamp(min=0)
        visible = labels[:, :-1] != IGNORED
        if word_dropout > 0:
            visible = visible & (torch.rand(visible.shape, device=visible.device) >= word_dropout)
        words = self.gpt2.transformer.wte(tokens[:, :-1]) * visible.unsqueeze(-1)  # [B, T-1, E]
        if owners is None:
            both = torch.cat([prefix, words], dim=1)  # [B, K+T-1, E]
            hidden = self.gpt2.transformer(inputs_embeds=both, use_cache=False).last_hidden_state
            hidden = hidden[:, prefix.shape[1] - 1 :]  # [B, T, E]
        else:
            hidden = self._hidden_after_prefix(prefix, owners, words)
        return self.gpt2.lm_head(hidden[labels != IGNORED]).float()

    def _hidden_after_prefix(self, prefix: Tensor, owners: Tensor, words: Tensor) -> Tensor:
        """Hidden states [B, T, E] at the end of each prefix [U, K, E] and its words [B, T-1, E]."""
        # The cache is passed by position: its name changed from `past_key_values` to `cache`.
        cache = DynamicCache(config=self.gpt2.config)
        read = self.gpt2.transformer(None, cache, inputs_embeds=prefix, use_cache=True)
        last = read.last_hidden_state[owners, -1:]  # [B, 1, E]
        if not words.shape[1]:
            return last
        cache.batch_select_indices(owners)
        read = self.gpt2.transformer(None, cache, inputs_embeds=words, use_cache=True)
        return torch.cat([last, read.last_hidden_state], dim=1)
