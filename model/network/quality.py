"""The head that says how likely a caption is right, from the decoder's states while it was written.

A caption is right if each of its tokens is. So the head gives each token a probability from two
states of the decoder, that which it was chosen from and that after it was read, and from its
log-probability. Their product is the probability of the caption, which a line fitted to other
captions calibrates (Platt scaling: Guo et al., "On Calibration of Modern Neural Networks", arXiv
1706.04599, section 4.1). The states see the image through the prefix and the caption so far, so
nothing is computed twice. `training.quality` learns the head after the captioner, whose weights
stay as they are.

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.

Axes: n captions, T tokens, E width of the decoder, h inner width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QualityHead(nn.Module):
    """Probability that nothing in a caption is wrong.

    Args:
        width: E.
        inner: h.
        dropout: Share of the inputs that are left out while it learns.
    """

    def __init__(self, width: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(2 * width + 1, inner)
        self.middle = nn.Linear(inner, inner)
        self.out = nn.Linear(inner, 1)
        self.dropout = nn.Dropout(dropout)
        #: Calibration: logit -> slope * logit + offset.
        self.slope = nn.Buffer(torch.ones(()))
        self.offset = nn.Buffer(torch.zeros(()))

    def forward(self, states: Tensor, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Quality of each caption.

        Args:
            states: float32 [n, T, E], the state that each token was chosen from; what stands behind
                the end of a caption makes no difference, if it is finite.
            log_probs: float32 [n, T], of the tokens, in nats; the same.
            lengths: int64 [n], tokens of each caption.

        Returns:
            float32 [n], from 0 to 1.
        """
        log_prob = self.log_prob(self.token_logits(states, log_probs, lengths), lengths)
        return torch.sigmoid(self.slope * logit(log_prob) + self.offset)

    def token_logits(self, states: Tensor, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Logit [n, T] of each token being wrong; the arguments are those of `forward`.

        The state after the last token is not computed by a search; zeros stand for it.
        """
        within = self.within(states.shape[1], lengths).unsqueeze(-1)  # [n, T, 1]
        states = self.dropout(states)
        after = F.pad(states[:, 1:] * within[:, 1:], [0, 0, 0, 1])
        log_probs = log_probs.clamp(min=-20.0).unsqueeze(-1)
        hidden = F.gelu(self.first(torch.cat([states, after, log_probs], -1)))  # [n, T, h]
        hidden = F.gelu(self.middle(self.dropout(hidden)))
        return self.out(hidden).squeeze(-1)

    def log_prob(self, token_logits: Tensor, lengths: Tensor) -> Tensor:
        """Log-probability [n] that all tokens are right, before the calibration."""
        within = self.within(token_logits.shape[1], lengths)
        return -(F.softplus(token_logits) * within).sum(1)

    def within(self, count: int, lengths: Tensor) -> Tensor:
        """Whether, bool [n, T], a place of T is within the caption."""
        return torch.arange(count, device=lengths.device) < lengths.unsqueeze(-1)


def logit(log_prob: Tensor) -> Tensor:
    """log(p / (1 - p)) of log(p), at most that of a probability of 1 - 1e-6."""
    log_prob = log_prob.clamp(max=-1.0e-6)
    return log_prob - torch.log(-torch.expm1(log_prob))
