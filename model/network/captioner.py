"""ClipCap as it is trained: CLIP encoder -> mapper -> GPT-2.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734, figure 2.
The encoder is another library's (see `model.network.encoder`), GPT-2 Hugging Face's, the mapper
ours. Serving runs the same weights through `model.network.decoder` and `model.network.search`.

Axes: B batch, K prefix length, T caption tokens, D CLIP width, E GPT-2 width, V vocabulary,
P image patches. A feature is [D], or [P, D] for the patch mapper, whose prefix length is P.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from model.config import CaptionerConfig
from model.network.encoder import ImageEncoder, build_encoder
from model.network.mapper import build_mapper

#: Label of a position that is no token of the caption: it takes no part in the loss.
IGNORED = -100


class ClipCap(nn.Module):
    """CLIP encoder, mapper and language model, with the caption loss.

    Args:
        config: Sizes; weights are random until loaded.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.clip: ImageEncoder | None = None
        if config.clip is not None:
            self.clip = build_encoder(config.clip)
        self.gpt2 = GPT2LMHeadModel(GPT2Config(**config.gpt2))
        width = self.gpt2.config.n_embd
        self.mapper = build_mapper(config.mapper, config.feature_width, width)

    def encode(self, pixels: Tensor) -> Tensor:
        """Features [B, D] or [B, P, D], as the mapper reads, of normalised pixels [B, 3, S, S]."""
        assert self.clip is not None, "this captioner was loaded without its encoder"
        return self.clip.encode(pixels, self.config.mapper.feature_kind)

    def prefix(self, features: Tensor) -> Tensor:
        """Prefixes [B, K, E] of features [B, D] or [B, P, D]."""
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
    ) -> Tensor:
        """Mean negative log-likelihood per caption token, in nats.

        Pads stand at the right, so causal attention alone keeps them from the tokens, and
        vocabulary logits are computed for tokens only. The prefix of an image is read once,
        however many of its captions there are: a long one costs most of the time.

        Args:
            features: Of U images, [U, D] or [U, P, D], as `encode` gives them.
            labels: [B, T] token ids, the end token included, then `IGNORED`. An ignored token
                among the others is neither read nor learned.
            word_dropout: Share of the words read that are blanked, so that the next word is
                learned from the image and not from what usually follows (arXiv 1511.06349,
                section 3.1).
            prior: Gives the logits [n, V] of the n labels that are not ignored, as the loss takes
                them, from these logits and all labels: see `training.captioner.pair_prior`.
            owners: Which of the images each caption is of, [B]; None if U is B.
        """
        prefix = self.prefix(features)  # [U, K, E]
        tokens = labels.clamp(min=0)
        read = labels[:, :-1] != IGNORED
        if word_dropout > 0:
            read = read & (torch.rand(read.shape, device=read.device) >= word_dropout)
        words = self.gpt2.transformer.wte(tokens[:, :-1]) * read.unsqueeze(-1)  # [B, T-1, E]
        if owners is None:
            both = torch.cat([prefix, words], dim=1)
            hidden = self.gpt2.transformer(inputs_embeds=both, use_cache=False).last_hidden_state
            hidden = hidden[:, prefix.shape[1] - 1 :]  # [B, T, E]
        else:
            hidden = self._hidden_after_prefix(prefix, owners, words)
        counted = labels != IGNORED
        logits = self.gpt2.lm_head(hidden[counted])  # [tokens, V]
        logits = logits.float()
        if prior is not None:
            logits = prior(logits, labels)
        return F.cross_entropy(logits, labels[counted])

    def _hidden_after_prefix(self, prefix: Tensor, owners: Tensor, words: Tensor) -> Tensor:
        """Hidden states [B, T, E] at the end of each prefix [U, K, E] and its words [B, T-1, E]."""
        read = self.gpt2.transformer(inputs_embeds=prefix, use_cache=True)
        ends = read.last_hidden_state[owners, -1:]  # [B, 1, E]
        if not words.shape[1]:
            return ends
        read.past_key_values.batch_select_indices(owners)
        behind = self.gpt2.transformer(
            inputs_embeds=words, past_key_values=read.past_key_values, use_cache=True
        )
        return torch.cat([ends, behind.last_hidden_state], dim=1)
