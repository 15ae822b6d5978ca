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
    logits, ids = (logits / temperature).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        logits, ids = logits[:, :top_k], ids[:, :top_k]
    share = logits.softmax(-1)
    total = share.cumsum(-1)
    if top_p < 1.0:
        # A token stays if those before it do not have enough; so the first one always does.
        share = share.masked_fill(total - share >= top_p, 0.0)
        total = share.cumsum(-1)
    wanted = chance.unsqueeze(1) * total[:, -1:]
    place = (total <= wanted).sum(-1, keepdim=True)  # the first place whose total is above it
    last = (share > 0).sum(-1, keepdim=True) - 1  # against rounding
    return ids.gather(1, torch.minimum(place, last))
