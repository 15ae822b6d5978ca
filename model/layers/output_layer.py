"""GPT-2's output layer and the choice of the likeliest tokens: a third of a step's products.

Axes: E width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OutputLayer(nn.Module):
    """Logits from the token embedding, and the likeliest of them.

    Args:
        embedding: The token embedding, whose weight [V, E] is the output layer's too.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
        self.head.weight = embedding.weight

    def forward(self, hidden: Tensor, count: int, barred: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens after each hidden state.

        Args:
            hidden: [..., E], normalised.
            count: How many, best first.
            barred: A token that is not to be among them, or -1.

        Returns:
            Log-probabilities [..., count] (barring a token does not raise the others') and token
            ids [..., count].
        """
        scores = self.head(hidden).log_softmax(-1)
        if barred >= 0:
            scores.select(-1, barred).fill_(float("-inf"))
        return largest(scores, count)

    def score(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities [..., n] of tokens [..., n] after hidden states [..., E]."""
        return self.head(hidden).log_softmax(-1).gather(-1, ids)


class NarrowOutputLayer(nn.Module):
    """The same through an 8-bit layer, with the choice itself made from the embedding as trained.

    The 8-bit logits only say which tokens are worth weighing, and what all the others together
    weigh; those worth it are weighed again with their rows of the embedding.

    Args:
        head: Packed linear layer from E to V.
        embedding: The token embedding [V, E].
    """

    def __init__(self, head: nn.Module, embedding: nn.Embedding) -> None:
        super().__init__()
        self.head = head
        self.embedding = embedding

    def forward(self, hidden: Tensor, count: int, barred: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens after each hidden state; see `OutputLayer.forward`."""
        ids, logits, total = self._shortlist(hidden, count)
        scores = logits - total
        if barred >= 0:
            scores = scores.masked_fill(ids == barred, float("-inf"))
        best, index = scores.topk(count, dim=-1)
        return best, ids.gather(-1, index)

    def score(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities [..., n] of tokens [..., n] after hidden states [..., E]."""
        return self._logits(hidden, ids) - self._shortlist(hidden, 1)[2]

    def _shortlist(self, hidden: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens worth weighing [..., n], their logits, and the log of all weights [..., 1]."""
        spare = 16  # beyond those asked for, as 8-bit logits may put them in the wrong order
        approximate = self.head(hidden)  # [..., V]
        best, ids = largest(approximate, min(count + spare, approximate.shape[-1]))
        # The log of all their weights, from what the likeliest is less than: a single fused pass.
        total = best[..., :1] - approximate.log_softmax(-1).gather(-1, ids[..., :1])
        logits = self._logits(hidden, ids)
        others = (1.0 - (best - total).exp().sum(-1, keepdim=True)).clamp(min=0.0)
        mended = others + (logits - total).exp().sum(-1, keepdim=True)
        return ids, logits, total + mended.log()

    def _logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        # A row times a matrix: a matrix times a column takes seven times as long.
        rows = self.embedding(ids).transpose(-1, -2)  # [..., E, n]
        return torch.matmul(hidden.unsqueeze(-2), rows).squeeze(-2)


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest scores [..., count], best first, and their places, of scores [..., V].

    Choosing from a large vocabulary costs more than the softmax over it, so it goes by way of the
    largest of each block: the `count` best are in the `count` blocks with the best largest.
    """
    block, large = 64, 4096  # tokens looked at together, and the vocabulary from which that pays
    vocabulary = scores.shape[-1]
    if vocabulary < large:
        return scores.topk(count, dim=-1)
    whole = vocabulary // block * block
    blocks = scores[..., :whole].unflatten(-1, [whole // block, block])
    places = blocks.amax(-1).topk(count, dim=-1)[1].unsqueeze(-1)  # [..., count, 1]
    ids = (places * block + torch.arange(block, device=scores.device)).flatten(-2)
    rest = torch.arange(whole, vocabulary, device=scores.device)
    rest = rest + torch.zeros_like(ids[..., :1])  # [..., V - whole]
    ids = torch.cat([ids, rest], dim=-1)
    best, index = scores.gather(-1, ids).topk(count, dim=-1)
    return best, ids.gather(-1, index)
