"""Caption search over the decoder: greedy and beam.

Token for token what Hugging Face's `generate(inputs_embeds=prefix, ...)` gives with the same
settings (`early_stopping=False`), row by row, whatever else is in the batch. An image whose caption
is found leaves the batch, so that a batch costs what its images cost, and not the longest of them
times their number. TorchScript compiles this file as it is; it also runs eagerly.

Axes: B batch, b images of it that are still at work, N beams, M captions returned, K prefix length,
E width, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.decoder import Decoder


class Search(nn.Module):
    """Writes captions from prefixes.

    Args:
        decoder: The language model.
        end_token_id: The token after which a caption is over; also fills the rows behind it.
    """

    def __init__(self, decoder: Decoder, end_token_id: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.end_token_id = end_token_id
        # Score of what cannot be chosen: below whatever the strongest length penalty makes of a sum
        # (64 ** 5 times it), and finite, so that twice it still is.
        self.never = -1.0e30

    def forward(
        self,
        prefix: Tensor,
        num_beams: int,
        num_captions: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Captions for a batch of prefixes.

        Args:
            prefix: [B, K, E].
            num_beams: N; 1 is greedy.
            num_captions: M, at most N.
            max_tokens: Tokens at most, the end token included.
            min_tokens: Tokens before the end token is allowed.
            length_penalty: Beams rank by log-probability / tokens ** length_penalty.

        Returns:
            Token ids [B, M, T] (T is the longest caption's length; behind its end a caption is
            filled with end tokens), lengths [B, M] with the end token counted, and
            log-probabilities [B, M] summed over those tokens, in nats. Best caption first.
        """
        if num_beams == 1:
            return self.greedy(prefix, max_tokens, min_tokens)
        tokens, lengths, log_probs = self.beam(
            prefix, num_beams, max_tokens, min_tokens, length_penalty
        )
        tokens = tokens[:, :num_captions, : int(lengths[:, :num_captions].max())]
        return tokens, lengths[:, :num_captions], log_probs[:, :num_captions]

    def greedy(
        self, prefix: Tensor, max_tokens: int, min_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest token each time; see `forward`."""
        batch, start, _ = prefix.shape
        device = prefix.device
        tokens = torch.full(
            [batch, max_tokens], self.end_token_id, dtype=torch.int64, device=device
        )
        lengths = torch.zeros([batch], dtype=torch.int64, device=device)
        log_probs = torch.zeros([batch], dtype=torch.float32, device=device)
        # b images are still at work; which of the batch they are:
        image = torch.arange(batch, device=device)
        hidden, cache = self.decoder.prefill(prefix, start + max_tokens)
        for count in range(max_tokens):
            best, token = self.decoder.output(
                hidden[:, 0], 1, self._barred(count, min_tokens)
            )  # [b, 1]
            tokens[image, count] = token[:, 0]
            lengths[image] = count + 1
            log_probs[image] += best[:, 0]
            going = token[:, 0] != self.end_token_id
            if count + 1 == max_tokens or not bool(going.any()):
                break
            if not bool(going.all()):
                order = compacted_order(going)
                image, token = image[order], token[order]
                cache.select(order)
            hidden = self.decoder.step(token, start + count, cache, None)
        tokens = tokens[:, : int(lengths.max())]
        return tokens.unsqueeze(1), lengths.unsqueeze(1), log_probs.unsqueeze(1)

    def beam(
        self,
        prefix: Tensor,
        num_beams: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The N best finished beams of each image, best first; see `forward`."""
        batch, start, _ = prefix.shape
        device = prefix.device
        wide = 2 * num_beams  # enough candidates that N of them do not end
        all_tokens = torch.full(
            [batch, num_beams, max_tokens], self.end_token_id, dtype=torch.int64, device=device
        )
        all_lengths = torch.zeros([batch, num_beams], dtype=torch.int64, device=device)
        all_sums = torch.zeros([batch, num_beams], device=device)

        # Of the b images still at work: which of the batch they are, their running beams, and the
        # finished ones.
        image = torch.arange(batch, device=device)
        running = all_tokens
        scores = torch.zeros([batch, 1], device=device)  # summed log-probability of each beam
        finished = all_tokens
        rank = torch.full([batch, num_beams], self.never, device=device)  # normalised by length
        sums = all_sums
        lengths = all_lengths
        filled = torch.zeros([batch, num_beams], dtype=torch.bool, device=device)

        hidden, cache = self.decoder.prefill(prefix, start + num_beams * max_tokens)
        # What each beam sees of the cache: zero where it descends from, minus infinity elsewhere.
        mask = torch.zeros([batch, num_beams, start], device=device)
        own = torch.full([num_beams, num_beams], float("-inf"), device=device)
        own = own.fill_diagonal_(0.0)
        for count in range(max_tokens):
            # Candidates: the best of each beam, then the best of those.
            # n beams: 1 for the first token, N after.
            best, token = self.decoder.output(
                hidden, wide, self._barred(count, min_tokens)
            )  # [b, n, 2N]
            candidates = (best + scores.unsqueeze(-1)).flatten(1)  # [b, n * 2N]
            candidates, index = candidates.topk(wide, dim=1)  # [b, 2N]
            parent = index.div(wide, rounding_mode="floor")
            token = token.flatten(1).gather(1, index)
            sequences = running.gather(1, parent.unsqueeze(-1).expand(-1, -1, max_tokens))
            sequences[:, :, count] = token

            # Those that end among the N best join the finished ones, if they are good enough.
            ends = token == self.end_token_id
            if count + 1 == max_tokens:
                ends = torch.ones_like(ends)
            joins = ends.clone()
            joins[:, num_beams:] = False
            ranked = candidates / (float(count + 1) ** length_penalty)
            ranked = torch.where(joins, ranked, torch.full_like(ranked, 2 * self.never))
            rank, keep = torch.cat([rank, ranked], 1).topk(num_beams, dim=1)
            finished = torch.cat([finished, sequences], 1).gather(
                1, keep.unsqueeze(-1).expand(-1, -1, max_tokens)
            )
            sums = torch.cat([sums, candidates], 1).gather(1, keep)
            length = torch.full_like(index, count + 1)
            lengths = torch.cat([lengths, length], 1).gather(1, keep)
            filled = torch.cat([filled, joins], 1).gather(1, keep)

            # The N best that go on, unless none of them can become better than the finished ones.
            scores, chosen = torch.where(ends, candidates + self.never, candidates).topk(
                num_beams, 1
            )
            token = token.gather(1, chosen)
            running = sequences.gather(1, chosen.unsqueeze(-1).expand(-1, -1, max_tokens))
            parent = parent.gather(1, chosen)
            going = self._can_improve(scores, rank, filled, count + 1, length_penalty)
            if count + 1 == max_tokens:
                going = torch.zeros_like(going)
            if not bool(going.all()):
                over = ~going
                all_tokens[image[over]] = finished[over]
                all_lengths[image[over]] = lengths[over]
                all_sums[image[over]] = sums[over]
                if not bool(going.any()):
                    break
                order = compacted_order(going)
                image, running, scores = image[order], running[order], scores[order]
                finished, rank, sums = finished[order], rank[order], sums[order]
                lengths, filled, mask = lengths[order], filled[order], mask[order]
                token, parent = token[order], parent[order]
                cache.select(order)
            ancestry = mask.gather(1, parent.unsqueeze(-1).expand(-1, -1, mask.shape[2]))
            mask = torch.cat([ancestry, own.expand(len(image), -1, -1)], dim=2)
            hidden = self.decoder.step(token, start + count, cache, mask)
        return all_tokens, all_lengths, all_sums

    @torch.jit.export
    def score(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T] of given tokens [B, T] behind prefixes [B, K, E], in nats."""
        start, count = prefix.shape[1], tokens.shape[1]
        hidden, cache = self.decoder.prefill(prefix, start + count)
        log_probs: list[Tensor] = []
        for place in range(count):
            token = tokens[:, place : place + 1]
            log_probs.append(self.decoder.output.score(hidden, token.unsqueeze(-1))[:, 0])
            if place + 1 < count:
                hidden = self.decoder.step(token, start + place, cache, None)
        return torch.cat(log_probs, dim=1)

    def _barred(self, count: int, min_tokens: int) -> int:
        """The token that may not come now, or -1."""
        return self.end_token_id if count < min_tokens else -1

    def _can_improve(
        self, scores: Tensor, rank: Tensor, filled: Tensor, length: int, length_penalty: float
    ) -> Tensor:
        """[b]: whether the best running beam would still enter the finished ones."""
        hope = scores[:, :1] / (float(length) ** length_penalty)
        worst = torch.where(filled, rank.min(dim=1, keepdim=True)[0], self.never)
        return (hope > worst).any(dim=1)


def compacted_order(going: Tensor) -> Tensor:
    """The places [b] of what goes on, of bool [B], in an order that moves as few as can be."""
    count = int(going.sum())
    order = torch.arange(count, device=going.device)
    order[~going[:count]] = going[count:].nonzero()[:, 0] + count
    return order
