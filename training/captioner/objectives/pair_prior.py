"""A prior on pairs of an attribute and the word after it, added to the logits in training only.

In a data set in which no dog is green, a captioner learns that "dog" does not follow "green" and
trusts that more than the picture: a green dog becomes a green boat. So the pointwise mutual
information of each such pair is counted once in the training captions and added to the logits of
the training loss. The weights then do not learn it, and captioning, which runs without the prior,
does not use it. This is logit adjustment (Menon et al., arXiv 2007.07314, section 5) with the other
word of the pair as the group, or a product of experts whose biased expert is dropped at the end
(Clark et al., arXiv 1909.03683).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from model.network.captioner import IGNORED

#: A pair that by chance would occur fewer times than this in the captions gets no prior.
EXPECTED = 5
#: Tokens whose pairs are counted at a time; it bounds the memory that counting takes.
TOKENS_COUNTED_TOGETHER = 1_000_000
#: The smallest information, in nats, is minus this. A pair that never occurs has it; it is so small
#: that the weights learn nothing from the absence of the pair.
LIMIT = 30.0


def attribute_tokens(
    words: Sequence[str], encode: Callable[[str], Sequence[int]], setting: str
) -> list[int]:
    """The tokens of these words, at the beginning of a caption and inside it.

    A word of several tokens is left out with a note: in a vocabulary learned from the captions it
    is so rare that the counts of its pairs mean little.

    Args:
        words: Words such as colours.
        encode: Text to token ids, without start and end tokens.
        setting: The setting that lists the words, for the note.
    """
    tokens: set[int] = set()
    left_out = []
    for word in words:
        spellings = [encode(word), encode(f" {word}")]
        tokens.update(ids[0] for ids in spellings if len(ids) == 1)
        if len(spellings[1]) != 1:
            left_out.append(word)
    if left_out:
        print(
            f"note: {setting} ignores {', '.join(left_out)}: several tokens each in this "
            "vocabulary",
            file=sys.stderr,
        )
    return sorted(tokens)


class PairPrior(nn.Module):
    """Pointwise mutual information of attribute tokens and the tokens after them.

    Args:
        captions: Token ids of the training captions one after another, [N], each caption with its
            end token.
        attributes: Tokens that name an attribute.
        vocabulary: V, number of tokens.
    """

    names: Tensor
    row_of: Tensor
    table: Tensor

    def __init__(self, captions: Tensor, attributes: Sequence[int], vocabulary: int) -> None:
        super().__init__()
        names = torch.tensor(sorted(set(attributes)), dtype=torch.long)
        row_of = torch.full((vocabulary,), -1)  # token -> its row in the table
        row_of[names] = torch.arange(len(names))
        counts = torch.zeros(len(names) * vocabulary, dtype=torch.double)
        for start in range(0, len(captions), TOKENS_COUNTED_TOGETHER):
            part = captions[start : start + TOKENS_COUNTED_TOGETHER + 1].long()
            attribute = row_of[part[:-1]]
            pairs = (attribute * vocabulary + part[1:])[attribute >= 0]
            counts += pairs.bincount(minlength=len(counts))
        counts = counts.view(-1, vocabulary)
        chance = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum().clamp(min=1)
        information = (counts / chance.clamp(min=1e-9)).log().clamp(min=-LIMIT)
        table = torch.where(chance >= EXPECTED, information, 0.0).float()
        self.register_buffer("names", names, persistent=False)
        self.register_buffer("row_of", row_of, persistent=False)
        self.register_buffer("table", table, persistent=False)  # [A, V]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits with the prior added.

        Args:
            logits: Logits of the n labels that are not `IGNORED`, row by row, [n, V].
            labels: Labels as `ClipCap.forward` takes them, int64 [B, T].

        Returns:
            Logits [n, V].
        """
        counted = labels != IGNORED
        attribute = torch.where(counted, self.row_of[labels.clamp(min=0)], -1)  # [B, T]
        nothing = labels.new_full((len(labels), 1), -1)
        before = torch.cat([nothing, attribute[:, :-1]], 1)[counted]
        behind = torch.cat([labels.clamp(min=-1)[:, 1:], nothing], 1)
        behind = torch.where(attribute >= 0, behind, -1)[counted]
        prior = torch.zeros_like(logits)
        rows = (before >= 0).nonzero()[:, 0]
        prior[rows] = self.table[before[rows]].to(prior.dtype)
        rows = (behind >= 0).nonzero()[:, 0]
        prior[rows[:, None], self.names] += self.table[:, behind[rows]].T.to(prior.dtype)
        return logits + prior
