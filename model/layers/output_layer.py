"""GPT-2's output layer and the choice of the most likely tokens.

The output layer has a third of the weights that a decode step multiplies. TorchScript compiles this
file: it keeps to the part of Python that TorchScript accepts.

Axes: E width, V vocabulary, n tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OutputLayer(nn.Module):
    """The output layer with the token embedding's weights, and the choice of the best tokens.

    Args:
        embedding: The token embedding; its weight [V, E] is also the output layer's.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
        self.head.weight = embedding.weight

    def forward(self, hidden: Tensor, count: int, forbidden: int) -> tuple[Tensor, Tensor]:
        """The most likely tokens after each hidden state, best first.

        Args:
            hidden: float32 [..., E], after the last layer norm.
            count: Number of tokens.
            forbidden: A token that must not be chosen, or -1. The log-probabilities of the others
                stay as they are.

        Returns:
            Log-probabilities float32 [..., count], in nats, and token ids int64 [..., count].
        """
        scores = self.head(hidden).log_softmax(-1)
        if forbidden >= 0:
            scores.select(-1, forbidden).fill_(float("-inf"))
        return largest(scores, count)

    def logits(self, hidden: Tensor, tokens: Tensor, count: int) -> Tensor:
        """Logits of every token, for rules that change some of them.

        Args:
            hidden: float32 [..., E], after the last layer norm.
            tokens: Tokens whose logits a rule may change, int64 [..., t].
            count: How many of the largest logits matter once t of them are lowered.

        Returns:
            float32 [..., V].
        """
        return self.head(hidden)

    def score(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities [..., n], in nats, of tokens [..., n] after hidden states [..., E]."""
        return self.head(hidden).log_softmax(-1).gather(-1, ids)


class NarrowOutputLayer(nn.Module):
    """The same with an 8-bit layer, and the choice made with the embedding's own weights.

    The 8-bit layer gives approximate logits of the whole vocabulary. The best of them are a short
    list, whose logits are computed again from the trained embedding. The approximate logits of all
    other tokens are used only for the normalisation of the log-probabilities.

    Args:
        head: Packed 8-bit layer from E to V.
        embedding: The token embedding [V, E].
    """

    def __init__(self, head: nn.Module, embedding: nn.Embedding) -> None:
        super().__init__()
        self.head = head
        self.embedding = embedding
        # More than asked for in a short list, as the order of 8-bit logits may be wrong.
        self.spare = 16

    def forward(self, hidden: Tensor, count: int, forbidden: int) -> tuple[Tensor, Tensor]:
        """The most likely tokens after each hidden state; see `OutputLayer.forward`."""
        ids, logits, log_sum = self._shortlist(hidden, count)
        scores = logits - log_sum
        if forbidden >= 0:
            scores = scores.masked_fill(ids == forbidden, float("-inf"))
        best, index = scores.topk(count, dim=-1)
        return best, ids.gather(-1, index)

    def logits(self, hidden: Tensor, tokens: Tensor, count: int) -> Tensor:
        """Logits of every token; see `OutputLayer.logits`.

        Exact are those of `tokens` and the largest ones; the others are those of the 8-bit layer.
        """
        approximate = self.head(hidden)
        wanted = min(count + tokens.shape[-1] + self.spare, approximate.shape[-1])
        ids = torch.cat([largest(approximate, wanted)[1], tokens], -1)
        return approximate.scatter(-1, ids, self._logits(hidden, ids))

    def score(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities [..., n], in nats, of tokens [..., n] after hidden states [..., E]."""
        return self._logits(hidden, ids) - self._shortlist(hidden, 1)[2]

    def _shortlist(self, hidden: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The short list for `count` tokens.

        Returns:
            Token ids [..., n] of the best approximate logits, their exact logits [..., n], and the
            log of the sum of exp(logit) over the vocabulary [..., 1].
        """
        approximate = self.head(hidden)  # [..., V]
        best, ids = largest(approximate, min(count + self.spare, approximate.shape[-1]))
        # The log-sum of the approximate logits, as a logit less its log-probability: `log_softmax`
        # is a single fused pass.
        log_sum = best[..., :1] - approximate.log_softmax(-1).gather(-1, ids[..., :1])
        logits = self._logits(hidden, ids)
        # In the sum, the approximate logits of the short list are replaced by the exact ones.
        outside = (1.0 - (best - log_sum).exp().sum(-1, keepdim=True)).clamp(min=0.0)
        corrected = outside + (logits - log_sum).exp().sum(-1, keepdim=True)
        return ids, logits, log_sum + corrected.log()

    def _logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Exact logits [..., n] of tokens [..., n] after hidden states [..., E]."""
        # As a row times a matrix; a matrix times a column takes seven times as long.
        rows = self.embedding(ids).transpose(-1, -2)  # [..., E, n]
        return torch.matmul(hidden.unsqueeze(-2), rows).squeeze(-2)


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest scores and their indices, best first.

    `topk` over a large vocabulary costs more than the softmax over it. So the scores are split into
    blocks: the `count` largest scores are in the `count` blocks with the largest maxima.

    Args:
        scores: float32 [..., V].
        count: Number of scores.

    Returns:
        Scores float32 [..., count] and indices int64 [..., count].
    """
    block, large = (
        64,
        4096,
    )  # tokens in a block; the smallest vocabulary for which blocks are faster
    vocabulary = scores.shape[-1]
    if vocabulary < large or count > vocabulary // (4 * block):  # or most blocks are chosen
        return scores.topk(count, dim=-1)
    whole = vocabulary // block * block
    blocks = scores[..., :whole].unflatten(-1, [whole // block, block])
    chosen = blocks.amax(-1).topk(count, dim=-1)[1].unsqueeze(-1)  # [..., count, 1]
    ids = (chosen * block + torch.arange(block, device=scores.device)).flatten(-2)
    rest = torch.arange(whole, vocabulary, device=scores.device)
    rest = rest + torch.zeros_like(ids[..., :1])  # [..., V - whole]
    ids = torch.cat([ids, rest], dim=-1)
    best, index = scores.gather(-1, ids).topk(count, dim=-1)
    return best, ids.gather(-1, index)
