"""A loss on sentences turned round, such as "left of" for "right of": which of the two is true?

`train.turned` lists pairs of phrases. Where a training caption has one of a pair, the captioner
must prefer it to the other one, given the picture and the words before it. At the first token in
which the two phrases differ, that is a choice between two tokens, so it costs next to nothing.

What is where in a picture is often told by which things there are: if no dog of the training
captions is left of anything, "a dog" makes "right of" certain, without a look at the picture. So
the words of the caption guess first, by a logistic regression that is fitted once to the training
captions and never sees a picture. The log-probabilities of its guess are added to the logits in the
training loss only, as in `training.captioner.objectives.pair_prior`: the weights learn what the
words do not tell already, and captioning runs without the guess (a product of experts whose biased
expert is dropped at the end, Clark et al., arXiv 1909.03683). So phrases that the words
always tell apart, such as "above" and "below" where kites are above dogs and never below, must not
be listed: nothing would be learned of them.

Axes: B batch, T caption tokens, n labels that are not ignored, V vocabulary, M matches of a phrase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.captioner import IGNORED
from model.refusal import Refusal

#: Steps of Adam with all captions, its learning rate, and the weight of the squared parameters.
FIT_STEPS, FIT_RATE, FIT_DECAY = 200, 0.1, 1e-5


class TurnedSentences(nn.Module):
    """Pairs of phrases, and how well the other words of a caption tell which of them it has.

    Calling it adds the guess of the words to the logits, and keeps the loss on turned sentences
    until `take_loss`.

    Args:
        phrases: Pairs of phrases.
        encode: Text to token ids, without start and end tokens.
        vocabulary: V, number of tokens.

    Raises:
        Refusal: The two phrases of a pair are equal, or one begins with the other.
    """

    before: Tensor
    after: Tensor
    bias: Tensor

    def __init__(
        self,
        phrases: Sequence[Sequence[str]],
        encode: Callable[[str], Sequence[int]],
        vocabulary: int,
    ) -> None:
        super().__init__()
        #: Of each phrase: its tokens; index of the first one in which it differs from the other
        #: phrase of the pair, and the token of the other there; number and sign of its pair.
        self.phrases: list[tuple[Tensor, int, int, int, float]] = []
        for number, pair in enumerate(phrases):
            if len(pair) != 2:
                raise Refusal(f"train.turned has {list(pair)}; give pairs of phrases")
            first, second = (list(encode(f" {phrase}")) for phrase in pair)
            same = 0
            while same < min(len(first), len(second)) and first[same] == second[same]:
                same += 1
            if same == min(len(first), len(second)):
                raise Refusal(
                    f"train.turned has the pair {pair[0]!r}, {pair[1]!r}, of which one begins with "
                    "the other; give two phrases that exclude each other"
                )
            for own, other, sign in ((first, second, 1.0), (second, first, -1.0)):
                self.phrases.append((torch.tensor(own), same, other[same], number, sign))
        for name in ("before", "after"):  # a weight of each word, before and after the phrase
            self.register_buffer(name, torch.zeros(len(phrases), vocabulary), persistent=False)
        self.register_buffer("bias", torch.zeros(len(phrases)), persistent=False)
        self._loss: Tensor | None = None

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the guess of the words to the training captions.

        Args:
            batches: Labels [B, T] as `ClipCap.forward` takes them.
        """
        found: list[list[Tensor]] = [[] for _ in self.bias]
        for labels in batches:
            for own, _, _, number, sign in self.phrases:
                rows, starts = _matches(labels, own)
                context = _context(labels[rows], starts, len(own), self.before.shape[1])  # [M, T]
                if len(rows):
                    signed = torch.full((len(rows), 1), int(sign))
                    found[number].append(torch.cat([signed, context], 1))
        for number, parts in enumerate(found):
            if parts:
                width = max(part.shape[1] for part in parts)
                table = torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts])
                self._fit_pair(number, table[:, 0].float(), table[:, 1:])

    @torch.enable_grad()
    def _fit_pair(self, number: int, signs: Tensor, context: Tensor) -> None:
        """Logistic regression of signs [M] on words [M, T] as `_context` gives them."""
        vocabulary = self.before.shape[1]
        weights = torch.zeros(2 * vocabulary + 1, requires_grad=True)  # index 0: no word
        bias = torch.zeros((), requires_grad=True)
        optimizer = torch.optim.Adam([weights, bias], FIT_RATE)
        used = (context != 0).float()
        for _ in range(FIT_STEPS):
            guess = (F.embedding(context, weights[:, None])[..., 0] * used).sum(1) + bias
            loss = F.softplus(-signs * guess).mean() + FIT_DECAY * weights.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.before[number] = weights.detach()[1 : vocabulary + 1]
        self.after[number] = weights.detach()[vocabulary + 1 :]
        self.bias[number] = bias.detach()

    def guess(self, labels: Tensor, starts: Tensor, length: int, number: int) -> Tensor:
        """Log-odds [M] of the first phrase of a pair against the second, from the other words.

        Args:
            labels: The captions [M, T].
            starts: Index of the phrase's first token, [M].
            length: Number of its tokens.
            number: Of the pair.
        """
        nothing = self.before.new_zeros(1)
        weights = torch.cat([nothing, self.before[number], self.after[number]])
        context = _context(labels, starts, length, self.before.shape[1])
        return weights[context].sum(1) + self.bias[number]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits with the guess added; the loss on turned sentences is kept for `take_loss`.

        Args:
            logits: Logits of the n labels that are not `IGNORED`, row by row, [n, V].
            labels: Labels as `ClipCap.forward` takes them, int64 [B, T].

        Returns:
            Logits [n, V].
        """
        counted = labels != IGNORED
        row_of = counted.flatten().cumsum(0).view(labels.shape) - 1  # of a label in `logits`
        added, losses = torch.zeros_like(logits), []
        for own, differs, other, number, sign in self.phrases:
            rows, starts = _matches(labels, own.to(labels.device))
            if not len(rows):
                continue
            odds = sign * self.guess(labels[rows], starts, len(own), number)
            at, true = row_of[rows, starts + differs], int(own[differs])
            added[at, true] = F.logsigmoid(odds)
            added[at, other] = F.logsigmoid(-odds)
            losses.append(F.softplus(-(logits[at, true] - logits[at, other] + odds)))
        self._loss = torch.cat(losses).mean() if losses else logits.new_zeros(())
        return logits + added

    def take_loss(self) -> Tensor:
        """Mean loss of the turned sentences of the last call, in nats a sentence."""
        assert self._loss is not None, "no logits were given yet"
        loss, self._loss = self._loss, None
        return loss


def _matches(labels: Tensor, phrase: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and first columns, int64 [M] each, of a phrase's tokens in labels [B, T]."""
    if labels.shape[1] < len(phrase):
        return labels.new_zeros(0), labels.new_zeros(0)
    rows, starts = (labels.unfold(1, len(phrase), 1) == phrase).all(-1).nonzero().unbind(1)
    return rows, starts


def _context(labels: Tensor, starts: Tensor, length: int, vocabulary: int) -> Tensor:
    """The words around a phrase: 0 for none, 1 + token before it, 1 + V + token behind it.

    Args:
        labels: Captions [M, T].
        starts: Index of the phrase's first token, [M].
        length: Number of its tokens.
        vocabulary: V.

    Returns:
        int64 [M, T].
    """
    column = torch.arange(labels.shape[1], device=labels.device)
    before = column < starts[:, None]
    behind = (column >= starts[:, None] + length) & (labels != IGNORED)
    return torch.where(before, 1 + labels, torch.where(behind, 1 + vocabulary + labels, 0))
