"""Rules that change which token may follow: no repetition, and drawing by chance.

The rules and their order are those of Hugging Face's `generate`: first the penalty on tokens that
the caption has, then tokens that are not allowed; for a draw the temperature, the most likely
tokens (`top_k`), and the smallest set of them with enough probability (`top_p`).

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.

Axes: R captions, t tokens so far, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.layers.output_layer import largest


def penalised(scores: Tensor, tokens: Tensor, penalty: float, ngram: int, forbidden: int) -> Tensor:
    """Scores of the next token after repetition has been made less likely or forbidden.

    Args:
        scores: Logits or log-probabilities, float32 [R, V].
        tokens: The captions so far, int64 [R, t].
        penalty: The score of a token that the caption has is divided by this if it is positive,
            else multiplied (Keskar et al., arXiv 1909.05858, section 4.1); 1 changes nothing.
        ngram: No run of this many tokens may come twice; 0 allows it.
        forbidden: A token that must not be chosen, or -1.

    Returns:
        [R, V]; minus infinity where a token is not allowed.
    """
    count = tokens.shape[1]
    if penalty != 1.0 and count > 0:
        own = scores.gather(1, tokens)
        own = torch.where(own < 0, own * penalty, own / penalty)
        scores = scores.scatter(1, tokens, own)
    else:
        scores = scores.clone()
    if ngram > 0 and count >= ngram:
        runs = tokens.unfold(1, ngram, 1)  # [R, t - ngram + 1, ngram]
        last = tokens[:, count - ngram + 1 :].unsqueeze(1)  # [R, 1, ngram - 1]
        again = (runs[:, :, : ngram - 1] == last).all(-1)  # begins as the caption now ends
        row, place = again.nonzero().unbind(1)
        scores[row, runs[row, place, ngram - 1]] = float("-inf")
    if forbidden >= 0:
        scores.select(1, forbidden).fill_(float("-inf"))
    return scores


def drawn(logits: Tensor, chance: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """A token for each caption, drawn by its probability.

    Args:
        logits: float32 [R, V].
        chance: Uniform random numbers in [0, 1), float32 [R]. The same number and logits always
            give the same token.
        temperature: Logits are divided by it.
        top_k: Only so many of the most likely tokens are drawn from; 0 for all.
        top_p: Only the fewest most likely tokens that have this much probability together; 1 for
            all.

    Returns:
        int64 [R, 1].
    """
    share = (logits / temperature).softmax(-1)
    if top_k == 0 and top_p == 1.0:
        return _at(share.cumsum(-1), chance)
    if top_k > 0:
        share, ids = largest(share, min(top_k, share.shape[1]))
        share = share / share.sum(-1, keepdim=True)
    else:
        every = share
        usual = 1024  # tokens, which nearly always have the probability of `top_p` together
        share, ids = largest(every, min(usual, every.shape[1]))
        if bool((share.sum(-1) < top_p).any()):
            share, ids = every.sort(dim=-1, descending=True, stable=True)
    if top_p < 1.0:
        # A token stays if those before it do not have enough; so the first one always does.
        share = share.masked_fill(share.cumsum(-1) - share >= top_p, 0.0)
    return ids.gather(1, _at(share.cumsum(-1), chance))


def _at(total: Tensor, chance: Tensor) -> Tensor:
    """The first place, int64 [R, 1], whose running total [R, n] is above its share of the whole."""
    whole = total[:, -1:]
    # Against rounding: the last place that adds something is the last one that may be found.
    wanted = torch.minimum(chance.unsqueeze(1) * whole, whole * (1.0 - 1e-6))
    return (total <= wanted).sum(-1, keepdim=True).clamp(max=total.shape[1] - 1)
