"""GPT-2's output layer and the choice of the likeliest tokens: a third of a decode step's cost.

Axes: E width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OutputLayer(nn.Module):
    """Logits from the token embedding, and the likeliest of them.

    Args:
        embedding: The token embedding [V, E], which is the output layer's weight too.
    """

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(embedding.shape[1], embedding.shape[0], bias=False)
        self.head.weight = nn.Parameter(embedding, requires_grad=False)

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


class NarrowOutputLayer(nn.Module):
    """The same from 8-bit weights, with the choice itself made from bfloat16 ones.

    The 8-bit logits only say which tokens are worth weighing, and what all the others together
    weigh; those worth it are weighed again with their rows of the embedding.

    Args:
        head: `nn.Linear` from E to V of the narrow precision.
        rows: The token embedding, bfloat16 [V, E].
    """

    def __init__(self, head: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.head = head
        self.rows = nn.Buffer(rows)

    def forward(self, hidden: Tensor, count: int, barred: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens after each hidden state; see `OutputLayer.forward`."""
        spare = 16  # weighed beyond those asked for, as rough logits may be in the wrong order
        rough = self.head(hidden)  # [..., V]
        scores = rough.log_softmax(-1)
        total = rough[..., :1] - scores[..., :1]  # log of the sum of all weights
        best, ids = largest(scores, min(count + spare, scores.shape[-1]))
        rows = self.rows[ids].float()  # [..., count + spare, E]
        weighed = torch.matmul(rows, hidden.unsqueeze(-1)).squeeze(-1) - total
        others = (1.0 - best.exp().sum(-1, keepdim=True)).clamp(min=0.0)
        weighed = weighed - torch.log(others + weighed.exp().sum(-1, keepdim=True))
        if barred >= 0:
            weighed = weighed.masked_fill(ids == barred, float("-inf"))
        best, index = weighed.topk(count, dim=-1)
        return best, ids.gather(-1, index)


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
