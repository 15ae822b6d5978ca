"""Drafts of a caption's next tokens, guessed from the n-grams of the training captions.

For one image, a decode step takes the time of reading the weights, whether it reads one token or
six. So greedy search lets the decoder read several guesses at a time, and keeps those that are the
tokens it would have chosen: speculative decoding (Leviathan et al., arXiv 2211.17192) with a tree
of guesses (Miao et al., SpecInfer, arXiv 2305.09781). The captions are those of greedy search.

TorchScript compiles `Drafts`: it keeps to the part of Python that TorchScript accepts.

Axes: n contexts, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

#: Tokens of the longest context.
ORDER = 3
#: Continuations of a context that are kept, the most frequent ones.
WIDTH = 3
#: Contexts that are kept at most, the most frequent ones: one to two megabytes.
CONTEXTS = 30_000
#: Guesses of a tree. A processor reads about so many tokens in the time of one.
GUESSES = 5


class Drafts(nn.Module):
    """Which tokens usually follow which.

    Args:
        keys: Each context of 1 to `ORDER` tokens as one number, see `key_of`; int64 [n].
        following: The tokens that follow it most often, int64 [n, WIDTH]; -1 fills the rows.
        shares: How often each of them follows it, float32 [n, WIDTH], 0..1.
        vocabulary: V.
    """

    def __init__(self, keys: Tensor, following: Tensor, shares: Tensor, vocabulary: int) -> None:
        super().__init__()
        # As lists and a dictionary: a caption looks up single entries, and an operator on a tensor
        # takes longer than that.
        self.rows: dict[int, int] = {key: row for row, key in enumerate(keys.tolist())}
        self.following: list[int] = following.flatten().tolist()
        self.shares: list[float] = shares.flatten().tolist()
        self.base = vocabulary + 1
        self.order = ORDER
        self.width = WIDTH
        self.guesses = GUESSES

    def tree(self, tokens: list[int], depth: int) -> tuple[list[int], list[int]]:
        """Guess what follows a caption: a tree whose nodes are the likeliest continuations.

        Args:
            tokens: The caption so far, behind an end token.
            depth: Most tokens of a guess, one behind another.

        Returns:
            The tokens of up to `GUESSES` nodes; and the node before each one, or -1 for those that
            follow the caption itself. A node comes after the one before it.
        """
        nodes: list[int] = []
        parents: list[int] = []
        paths: list[list[int]] = [tokens[-self.order :]]  # of the caption, then of each node
        depths: list[int] = [0]
        # Continuations that are no nodes yet: where they continue, their token, their probability.
        open_parents: list[int] = []
        open_tokens: list[int] = []
        open_shares: list[float] = []
        last, share = 0, 1.0
        while True:
            row = self._row(paths[last]) if depths[last] < depth else -1
            for column in range(self.width):
                place = row * self.width + column
                # Nothing follows the end, so there is no use in reading it.
                if row >= 0 and self.following[place] not in (-1, tokens[0]):
                    open_parents.append(last)
                    open_tokens.append(self.following[place])
                    open_shares.append(share * self.shares[place])
            if len(open_shares) == 0 or len(nodes) == self.guesses:
                break
            best = 0
            for index in range(len(open_shares)):
                if open_shares[index] > open_shares[best]:
                    best = index
            parent, token = open_parents.pop(best), open_tokens.pop(best)
            share = open_shares.pop(best)
            nodes.append(token)
            parents.append(parent - 1)
            paths.append((paths[parent] + [token])[-self.order :])
            depths.append(depths[parent] + 1)
            last = len(nodes)
        return nodes, parents

    def _row(self, context: list[int]) -> int:
        """The row of the longest known end of a context, or -1."""
        for begin in range(len(context)):
            key = 0
            for token in context[begin:]:
                key = key * self.base + token + 1
            if key in self.rows:
                return self.rows[key]
        return -1


def count_drafts(captions: np.ndarray, end_token_id: int, vocabulary: int) -> dict[str, Tensor]:
    """Count the n-grams of captions.

    Holds a few numbers for each token; 10 million tokens take about 20 s and 1 GB.

    Args:
        captions: The tokens of all captions, one after another, each with its end token; [tokens].
        end_token_id: The end token; in a context it stands for the start of a caption.
        vocabulary: V.

    Returns:
        The arguments `keys`, `following` and `shares` of `Drafts`, sorted by key.
    """
    tokens = np.concatenate([[end_token_id], captions.astype(np.int64)])
    base = vocabulary + 1
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for order in range(1, ORDER + 1):
        if len(tokens) <= order:
            break
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], order)
        inside = (windows[:, 1:] != end_token_id).all(1)  # one caption, perhaps with its start
        windows, next_ = windows[inside], tokens[order:][inside]
        key = np.zeros(len(windows), np.int64)
        for column in range(order):
            key = key * base + windows[:, column] + 1
        contexts, following, shares, counts = _most_frequent(key, next_)
        kept = counts > (1 if order > 1 else 0)  # a longer context that is seen once is chance
        parts.append((contexts[kept], following[kept], shares[kept], counts[kept]))
    contexts, following, shares, counts = map(np.concatenate, zip(*parts, strict=True))
    most = np.argsort(-counts, kind="stable")[:CONTEXTS]
    most = most[np.argsort(contexts[most])]
    return {
        "keys": torch.from_numpy(contexts[most]),
        "following": torch.from_numpy(following[most]),
        "shares": torch.from_numpy(shares[most]),
    }


def _most_frequent(
    key: np.ndarray, next_: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Contexts [n], their most frequent next tokens [n, WIDTH], shares [n, WIDTH], counts [n]."""
    order = np.lexsort((next_, key))
    key, next_ = key[order], next_[order]
    is_new = np.ones(len(key), bool)
    is_new[1:] = (key[1:] != key[:-1]) | (next_[1:] != next_[:-1])
    starts = is_new.nonzero()[0]
    key, next_, count = key[starts], next_[starts], np.diff(np.append(starts, len(key)))
    order = np.lexsort((next_, -count, key))  # within a context the most frequent comes first
    key, next_, count = key[order], next_[order], count[order]
    contexts, first = np.unique(key, return_index=True)
    total = np.add.reduceat(count, first)
    rank = np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))
    row = np.repeat(np.arange(len(contexts)), np.diff(np.append(first, len(key))))
    kept = rank < WIDTH
    following = np.full((len(contexts), WIDTH), -1, np.int64)
    shares = np.zeros((len(contexts), WIDTH), np.float32)
    following[row[kept], rank[kept]] = next_[kept]
    shares[row[kept], rank[kept]] = (count / total[row])[kept]
    return contexts, following, shares, total
