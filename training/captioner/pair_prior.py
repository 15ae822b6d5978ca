"""What an attribute and the word behind it say of each other, taken out of the caption loss.

In a data set in which no dog is green, "green" is evidence against "dog" and a dog against
"green", and a captioner trusts that above the picture: a green dog becomes a green boat. How much
more rarely than by chance two words follow each other is counted once from the training captions
and added to the logits while training, so that the weights need not learn it; captioning goes
without it. This is logit adjustment (Menon et al., arXiv 2007.07314, section 5) with the other
word of the pair as the group, or a product of experts whose biased expert is dropped at the end
(Clark et al., arXiv 1909.03683).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from model.network.captioner import IGNORED

#: A pair that chance alone would bring fewer times than this in the captions is left out.
EXPECTED = 5
#: Tokens whose pairs are counted at a time, so that many captions take no more memory than few.
AT_ONCE = 1_000_000
#: The information of a pair that never occurs, in nats, with the sign turned: so much that the
#: weights have nothing left to learn from its absence.
LIMIT = 30.0


def attribute_tokens(
    words: Sequence[str], encode: Callable[[str], Sequence[int]], setting: str
) -> list[int]:
    """The tokens that are one of these words, at the beginning of a caption or inside it.

    A word of several tokens is left out, and said so: in a vocabulary learned from the captions it
    is too rare for its pairs to say anything.

    Args:
        words: Such as colours.
        encode: Text to token ids, without tokens for its beginning and end.
        setting: What names the words, for the note.
    """
    tokens, left_out = set(), []
    for word in words:
        spellings = [encode(word), encode(f" {word}")]
        tokens.update(ids[0] for ids in spellings if len(ids) == 1)
        if len(spellings[1]) != 1:
            left_out.append(word)
    if left_out:
        print(
            f"note: {setting} goes without {', '.join(left_out)}, several tokens each in this "
            "vocabulary",
            file=sys.stderr,
        )
    return sorted(tokens)


class PairPrior(nn.Module):
    """Pointwise mutual information of attribute tokens and the tokens behind them.

    Args:
        captions: Token ids of the training captions one after another, [N], each caption with its
            end token.
        attributes: Tokens that name an attribute.
        vocabulary: V.
    """

    def __init__(self, captions: Tensor, attributes: Sequence[int], vocabulary: int) -> None:
        super().__init__()
        names = torch.tensor(sorted(set(attributes)), dtype=torch.long)
        place = torch.full((vocabulary,), -1)
        place[names] = torch.arange(len(names))
        counts = torch.zeros(len(names) * vocabulary, dtype=torch.double)
        for start in range(0, len(captions), AT_ONCE):
            part = captions[start : start + AT_ONCE + 1].long()
            attribute = place[part[:-1]]
            pairs = (attribute * vocabulary + part[1:])[attribute >= 0]
            counts += pairs.bincount(minlength=len(counts))
        counts = counts.view(-1, vocabulary)
        chance = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum().clamp(min=1)
        information = (counts / chance.clamp(min=1e-9)).log().clamp(min=-LIMIT)
        table = torch.where(chance >= EXPECTED, information, 0.0).float()
        self.register_buffer("names", names, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("table", table, persistent=False)  # [A, V]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits with the prior added.

        Args:
            logits: [n, V], of the labels that are not `IGNORED`, row by row.
            labels: [B, T], as `ClipCap.forward` takes them.
        """
        counted = labels != IGNORED
        attribute = torch.where(counted, self.place[labels.clamp(min=0)], -1)  # [B, T]
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
