"""Caption search over the decoder: greedy, beam, and drawing by chance.

The captions are, token for token, those of Hugging Face's `generate(inputs_embeds=prefix, ...)`
with the same settings (`early_stopping=False`), and do not depend on the other rows of the batch.

An image whose search is finished leaves the batch. So a batch costs the sum of its images' steps,
and not the steps of the longest caption times the number of images.

TorchScript compiles this file: it keeps to the part of Python that TorchScript accepts.

Axes: B batch, b images whose search still runs, N beams, M captions returned, K prefix length,
E width, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.choice import drawn, penalised
from model.network.decoder import Decoder
from model.network.drafts import Drafts
from model.network.quality import QualityHead
from model.network.spelling import Spelling


class Search(nn.Module):
    """Writes captions from prefixes.

    Args:
        decoder: The language model.
        end_token_id: The token that ends a caption; it also fills the rows after the end.
        spelling: What tokens add to a text. Without it, captions cannot be limited in characters.
        drafts: Guesses of the next tokens, with which greedy search of one image takes less time.
        quality: Judges the captions from the decoder's states; None for captions without.
    """

    def __init__(
        self,
        decoder: Decoder,
        end_token_id: int,
        spelling: Spelling | None = None,
        drafts: Drafts | None = None,
        quality: QualityHead | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.end_token_id = end_token_id
        self.spelling = spelling
        self.drafts = drafts
        self.quality = quality
        # The score of a beam that must not be chosen. It is below every real score, also after the
        # strongest length penalty (a factor of 64 ** 5), and twice the value is still finite.
        self.excluded = -1.0e30

    def forward(
        self,
        prefix: Tensor,
        num_beams: int,
        num_captions: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
        repetition_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        chances: Tensor | None = None,
        prompt: Tensor | None = None,
        max_characters: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Captions for a batch of prefixes.

        Args:
            prefix: [B, K, E].
            num_beams: N; 1 is greedy, or a draw if `temperature` is above 0.
            num_captions: M, at most N but for a draw.
            max_tokens: Tokens at most, the end token included.
            min_tokens: Tokens before the end token is allowed.
            length_penalty: Beams are ranked by log-probability / tokens ** length_penalty.
            repetition_penalty: See `model.network.choice.penalised`; 1 is none.
            no_repeat_ngram_size: The same; 0 allows all.
            temperature: See `model.network.choice.drawn`; 0 is no draw.
            top_k: The same; 0 is no limit.
            top_p: The same; 1 is no limit.
            chances: Random numbers of a draw, float32 [M, T'] with T' at least `max_tokens`; every
                image is drawn with the same ones. None without a draw.
            prompt: Tokens that every caption begins with, int64 [P]. The limits of tokens and the
                rules on repetition are for those behind it; they, their number and their
                log-probabilities are part of the result. None for captions without.
            max_characters: Characters of the caption's text at most, those of `prompt` included; 0
                is no limit. A caption for which the likeliest token does not fit may be cut there,
                after its last whole sentence or word: a single one is, and of beams it is used
                where too few others end. It has fewer than `max_tokens` tokens and no end token.

        Returns:
            Token ids int64 [B, M, T], where T is the length of the longest caption and shorter ones
            are filled with end tokens; lengths int64 [B, M], the end token included;
            log-probabilities float32 [B, M], summed over those tokens, in nats: the captioner's
            own, without penalty and temperature; and qualities float32 [B, M], from 0 to 1, or
            [B, 0] without a quality head. The best caption of an image comes first; of a draw they
            come in the order of `chances`.
        """
        start = prefix
        if prompt is not None:
            words = self.decoder.wte(prompt).expand(prefix.shape[0], -1, -1)  # [B, P, E]
            prefix = torch.cat([prefix, words], 1)
        room = self._room(prompt, max_characters)
        is_plain = repetition_penalty == 1.0 and no_repeat_ngram_size == 0 and chances is None
        is_plain = is_plain and num_beams == 1 and min_tokens == 0 and room < 0
        if self.drafts is not None and is_plain and prefix.shape[0] == 1:
            tokens, lengths, log_probs, states, each = self.guessed(prefix, max_tokens)
        elif num_beams > 1:
            tokens, lengths, log_probs, states, each = self.beam(
                prefix,
                num_beams,
                max_tokens,
                min_tokens,
                length_penalty,
                repetition_penalty,
                no_repeat_ngram_size,
                room,
                prompt is None,
            )
            tokens = tokens[:, :num_captions, : max(1, int(lengths[:, :num_captions].max()))]
            lengths, log_probs = lengths[:, :num_captions], log_probs[:, :num_captions]
            states = states[:, :num_captions, : tokens.shape[2]]
            each = each[:, :num_captions, : tokens.shape[2]]
            if repetition_penalty != 1.0:
                each = self._log_probs(prefix, tokens, lengths)
                log_probs = each.sum(-1)
        else:
            count = 1
            if chances is not None:
                count = num_captions
                chances = chances[:count].repeat(prefix.shape[0], 1)
            tokens, lengths, log_probs, states, each = self.single(
                prefix.repeat_interleave(count, 0) if count > 1 else prefix,
                max_tokens,
                min_tokens,
                repetition_penalty,
                no_repeat_ngram_size,
                temperature,
                top_k,
                top_p,
                chances,
                room,
                prompt is None,
            )
            shape = [prefix.shape[0], count]
            tokens, lengths = tokens.view(shape + [-1]), lengths.view(shape)
            log_probs = log_probs.view(shape)
            states, each = states.unflatten(0, shape), each.unflatten(0, shape)
        if max_characters > 0:
            last = tokens.gather(2, (lengths - 1).clamp(min=0).unsqueeze(2)).squeeze(2)
            cut = (lengths < max_tokens) & ((last != self.end_token_id) | (lengths == 0))
            if bool(cut.any()):  # of the tokens that are left
                left = self._log_probs(prefix, tokens, lengths)
                log_probs = torch.where(cut, left.sum(-1), log_probs)
                each = left
        if prompt is not None:
            batch, count, _ = tokens.shape
            tokens = torch.cat([prompt.expand(batch, count, -1), tokens], 2)
            lengths = lengths + prompt.shape[0]
            own, read = self._read(start, prompt.expand(batch, -1))  # [B, P], [B, P, E]
            log_probs = log_probs + own.sum(1, keepdim=True)
            each = torch.cat([own.unsqueeze(1).expand(-1, count, -1), each], 2)
            states = torch.cat([read.unsqueeze(1).expand(-1, count, -1, -1), states], 2)
        quality = self.quality
        if quality is None:
            return tokens, lengths, log_probs, log_probs[:, :0]
        judged = quality(states.flatten(0, 1).float(), each.flatten(0, 1), lengths.flatten())
        return tokens, lengths, log_probs, judged.view(lengths.shape)

    def single(
        self,
        prefix: Tensor,
        max_tokens: int,
        min_tokens: int,
        repetition_penalty: float,
        no_repeat_ngram_size: int,
        temperature: float,
        top_k: int,
        top_p: float,
        chances: Tensor | None,
        room: int,
        at_start: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """A caption for each prefix: the most likely token at every step, or one that is drawn.

        The arguments are those of `forward`; `chances` is [B, T'] here, `room` the number of
        characters that fit, or -1, and `at_start` whether the text begins with these captions.

        Returns:
            Token ids [B, T], lengths [B] and log-probabilities [B], as from `forward`. Then follow,
            for the quality head, the states that the tokens were chosen from, [B, T, E], and the
            log-probabilities of the tokens, [B, T]. Without a head both are empty.
        """
        batch, start, _ = prefix.shape
        device = prefix.device
        # All scores are needed by a rule that changes some of them; else the best one is.
        by_rule = repetition_penalty != 1.0 or no_repeat_ngram_size > 0 or chances is not None
        # How many of the largest logits must be exact: one beside the end token, or those that are
        # likely to be drawn.
        enough = 2 if chances is None else max(256, top_k)
        tokens = torch.full(
            [batch, max_tokens], self.end_token_id, dtype=torch.int64, device=device
        )
        lengths = torch.zeros([batch], dtype=torch.int64, device=device)
        log_probs = torch.zeros([batch], dtype=torch.float32, device=device)
        row = torch.arange(batch, device=device)  # [b], the rows whose search still runs
        characters = torch.zeros_like(lengths)
        hidden, cache = self.decoder.prefill(prefix, start + max_tokens)
        width = self._kept_width(hidden)
        states = hidden.new_zeros([batch, max_tokens, width])
        each = torch.zeros([batch, max_tokens if width > 0 else 0], device=device)
        # Of the steps since a row left last: hidden states [b, 1, E], log-probabilities [b, 1].
        recent: list[Tensor] = []
        recent_log_probs: list[Tensor] = []
        for count in range(max_tokens):
            recent.append(hidden)
            forbidden = self._forbidden_token(count, min_tokens)
            if by_rule:
                own = tokens[row, :count]
                logits = self.decoder.output.logits(hidden[:, 0], own, enough)  # [b, V]
                allowed = penalised(
                    logits, own, repetition_penalty, no_repeat_ngram_size, forbidden
                )
                if chances is not None:
                    token = drawn(allowed, chances[row, count], temperature, top_k, top_p)
                else:
                    token = allowed.argmax(1, keepdim=True)
                best = logits.log_softmax(1).gather(1, token)
            else:
                best, token = self.decoder.output(hidden[:, 0], 1, forbidden)  # [b, 1]
            tokens[row, count] = token[:, 0]
            lengths[row] = count + 1
            log_probs[row] += best[:, 0]
            recent_log_probs.append(best)
            running = token[:, 0] != self.end_token_id
            if room >= 0:
                characters[row] += self._characters(token[:, 0], at_start and count == 0)
                full = characters[row] > self._limit(room, at_start and count == 0)
                lengths[row[full]] = self._kept(tokens[row[full], :count], token[full, 0])
                running = running & ~full
            last = count + 1 == max_tokens or not bool(running.any())
            leaving = last or not bool(running.all())
            if leaving and self.quality is not None:
                begin = count + 1 - len(recent)
                states[row, begin : count + 1] = torch.cat(recent, 1)
                each[row, begin : count + 1] = torch.cat(recent_log_probs, 1)
            if last:
                break
            if leaving:
                recent.clear()
                recent_log_probs.clear()
                order = compacted_order(running)
                row, token = row[order], token[order]
                cache.select(order)
            hidden = self.decoder.step(token, start + count, cache, None)
        if room >= 0:
            tokens = self._cleared(tokens, lengths)
        longest = max(1, int(lengths.max()))
        return tokens[:, :longest], lengths, log_probs, states[:, :longest], each[:, :longest]

    def guessed(
        self, prefix: Tensor, max_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The greedy caption of one prefix [1, K, E], with fewer steps; see `model.network.drafts`.

        Returns:
            Token ids [1, 1, T], length [1, 1] and log-probability [1, 1], as from `forward`; states
            [1, 1, T, E] and log-probabilities of the tokens [1, 1, T], as from `single`.
        """
        assert self.drafts is not None, "this search has no drafts"
        start, device = prefix.shape[1], prefix.device
        rejected = float("-inf")
        hidden, cache = self.decoder.prefill(prefix, start + max_tokens * (1 + self.drafts.guesses))
        best, token = self.decoder.output(hidden[:, 0], 1, -1)
        tokens: list[int] = [self.end_token_id, int(token)]  # behind an end token, as drafts are
        log_prob = float(best)
        width = self._kept_width(hidden)
        states: list[Tensor] = [hidden[..., :width]]
        each: list[float] = [log_prob]
        seen: list[float] = [0.0] * start  # mask of the cache: 0 at the slots of the caption
        while len(tokens) <= max_tokens and tokens[-1] != self.end_token_id:
            # The decoder reads the last token and the guesses behind it: N tokens, each of which
            # attends to those before it.
            guesses, parents = self.drafts.tree(tokens, max_tokens - len(tokens))
            count = 1 + len(guesses)
            depths: list[int] = [0]
            own: list[list[float]] = [[0.0] + [rejected] * (count - 1)]
            for index in range(len(guesses)):
                before = parents[index] + 1
                row = own[before].copy()
                row[index + 1] = 0.0
                own.append(row)
                depths.append(depths[before] + 1)
            mask = torch.tensor([seen + row for row in own], device=device).unsqueeze(0)
            hidden = self.decoder.step(
                torch.tensor([tokens[-1:] + guesses], device=device),
                start + len(tokens) - 2,
                cache,
                mask,
                torch.tensor(depths, device=device),
            )
            best, token = self.decoder.output(hidden[0], 1, -1)
            chosen: list[int] = token[:, 0].tolist()
            gains: list[float] = best[:, 0].tolist()
            kept = [0.0] + [rejected] * len(guesses)
            node = 0
            while node >= 0:  # along the guesses that are the tokens chosen
                tokens.append(chosen[node])
                log_prob += gains[node]
                if self.quality is not None:
                    states.append(hidden[:, node : node + 1])
                    each.append(gains[node])
                following = -1
                if len(tokens) <= max_tokens and chosen[node] != self.end_token_id:
                    for index in range(len(guesses)):
                        if parents[index] + 1 == node and guesses[index] == chosen[node]:
                            following = index + 1
                if following >= 0:
                    kept[following] = 0.0
                node = following
            seen = seen + kept
        found = torch.tensor([[tokens[1:]]], device=device)
        length = torch.tensor([[len(tokens) - 1]], device=device)
        gained = torch.tensor([[each]], device=device)
        read = torch.cat(states, 1).unsqueeze(1)
        return found, length, torch.tensor([[log_prob]], device=device), read, gained

    def beam(
        self,
        prefix: Tensor,
        num_beams: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
        repetition_penalty: float,
        no_repeat_ngram_size: int,
        room: int,
        at_start: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The N best finished beams of each image, best first; see `forward` and `single`.

        The sums of log-probabilities are those that the beams were ranked by: with the penalty.
        With a limit of characters, tokens that do not fit fall out of the candidates.
        Then follow, for the quality head, the states that the tokens were chosen from, [B, N, T,
        E], and the log-probabilities of the tokens, [B, N, T], whose sums those are. Without a head
        both are empty.
        """
        batch, start, _ = prefix.shape
        device = prefix.device
        candidate_count = 2 * num_beams  # at most N of them end, so at least N can continue
        by_rule = repetition_penalty != 1.0 or no_repeat_ngram_size > 0
        # The result, filled in when the search of an image is finished. For the quality head,
        # behind the tokens of a beam stand the places of the beams that they were chosen from.
        columns = max_tokens if self.quality is None else 2 * max_tokens
        all_tokens = torch.full(
            [batch, num_beams, columns], self.end_token_id, dtype=torch.int64, device=device
        )
        all_lengths = torch.zeros([batch, num_beams], dtype=torch.int64, device=device)
        all_sums = torch.zeros([batch, num_beams], device=device)

        # The b images whose search still runs: their rows, their running beams (tokens and summed
        # log-probabilities), and their finished beams with scores that are normalised by length.
        image = torch.arange(batch, device=device)
        running_tokens = all_tokens
        running_sums = torch.zeros([batch, 1], device=device)
        finished_tokens = all_tokens
        finished_scores = torch.full([batch, num_beams], self.excluded, device=device)
        finished_sums = all_sums
        finished_lengths = all_lengths
        is_finished = torch.zeros([batch, num_beams], dtype=torch.bool, device=device)
        # With a limit of characters: those of the running beams, and the best beams that were cut.
        characters = torch.zeros([batch, 1], dtype=torch.int64, device=device)
        cut_tokens, cut_scores, cut_lengths = all_tokens, finished_scores, all_lengths

        hidden, cache = self.decoder.prefill(prefix, start + num_beams * max_tokens)
        # Attention mask of each beam over the cache: zero at the entries of the prefix and of the
        # beam's own tokens, minus infinity at those of other beams.
        mask = torch.zeros([batch, num_beams, start], device=device)
        new_entries = torch.full([num_beams, num_beams], float("-inf"), device=device)
        new_entries = new_entries.fill_diagonal_(0.0)
        states = hidden.new_zeros([batch, max_tokens, num_beams, self._kept_width(hidden)])
        sums = torch.zeros([batch, max_tokens, num_beams], device=device)
        # Of the steps since an image left last: states [b, N, E], sums of log-probabilities [b, N].
        recent: list[Tensor] = []
        recent_sums: list[Tensor] = []
        for count in range(max_tokens):
            if self.quality is not None:
                recent.append(hidden.expand(-1, num_beams, -1))
                recent_sums.append(running_sums.expand(-1, num_beams))
            # Candidates: the best tokens after each beam, and the best of those over all beams.
            # n is the number of beams: 1 for the first token, then N. They are [b, n, 2N].
            forbidden = self._forbidden_token(count, min_tokens)
            if by_rule:
                own = running_tokens[:, : hidden.shape[1], :count]
                logits = self.decoder.output.logits(hidden, own, candidate_count + 1)
                log_probs = logits.log_softmax(-1)  # [b, n, V]
                allowed = penalised(
                    log_probs.flatten(0, 1),
                    own.flatten(0, 1),
                    repetition_penalty,
                    no_repeat_ngram_size,
                    forbidden,
                )
                best, token = allowed.view(log_probs.shape).topk(candidate_count, dim=-1)
            else:
                best, token = self.decoder.output(hidden, candidate_count, forbidden)
            if room >= 0:
                added = self._characters(token, at_start and count == 0)
                total = characters.unsqueeze(-1) + added  # [b, n, 2N]
                full = total > self._limit(room, at_start and count == 0)
                # A beam whose likeliest token does not fit may be cut here.
                own = running_tokens[:, : hidden.shape[1]]
                kept = self._kept(own[:, :, :count].flatten(0, 1), token[:, :, 0].flatten())
                scores = running_sums / (float(max(count, 1)) ** length_penalty)
                scores = scores.masked_fill(~(full[:, :, 0] & self._alive(running_sums)), -1e38)
                cut_scores, index = torch.cat([cut_scores, scores], 1).topk(num_beams, 1)
                cut_tokens = torch.cat([cut_tokens, own], 1).gather(
                    1, index.unsqueeze(-1).expand(-1, -1, columns)
                )
                cut_lengths = torch.cat([cut_lengths, kept.view(scores.shape)], 1).gather(1, index)
                best = best.masked_fill(full, self.excluded)
                characters = total.flatten(1)
            candidates = (best + running_sums.unsqueeze(-1)).flatten(1)  # [b, n * 2N]
            candidates, index = candidates.topk(candidate_count, dim=1)  # [b, 2N]
            parent = index.div(candidate_count, rounding_mode="floor")
            token = token.flatten(1).gather(1, index)
            sequences = running_tokens.gather(1, parent.unsqueeze(-1).expand(-1, -1, columns))
            sequences[:, :, count] = token
            if self.quality is not None:
                sequences[:, :, max_tokens + count] = parent

            # Candidates that end, among the N best, enter the finished beams if their score is
            # among the N best of those.
            ends = token == self.end_token_id
            if count + 1 == max_tokens:
                ends = torch.ones_like(ends)
            finishes = ends.clone()
            finishes[:, num_beams:] = False
            if room >= 0:
                finishes = finishes & self._alive(candidates)
            scores = candidates / (float(count + 1) ** length_penalty)
            scores = torch.where(finishes, scores, torch.full_like(scores, 2 * self.excluded))
            finished_scores, kept = torch.cat([finished_scores, scores], 1).topk(num_beams, dim=1)
            finished_tokens = torch.cat([finished_tokens, sequences], 1).gather(
                1, kept.unsqueeze(-1).expand(-1, -1, columns)
            )
            finished_sums = torch.cat([finished_sums, candidates], 1).gather(1, kept)
            length = torch.full_like(index, count + 1)
            finished_lengths = torch.cat([finished_lengths, length], 1).gather(1, kept)
            is_finished = torch.cat([is_finished, finishes], 1).gather(1, kept)

            # The N best candidates that do not end are the running beams of the next step.
            running_sums, chosen = torch.where(ends, candidates + self.excluded, candidates).topk(
                num_beams, 1
            )
            token = token.gather(1, chosen)
            running_tokens = sequences.gather(1, chosen.unsqueeze(-1).expand(-1, -1, columns))
            parent = parent.gather(1, chosen)
            if room >= 0:
                characters = characters.gather(1, index.gather(1, chosen))

            # An image leaves the batch when no running beam can enter its finished beams any more.
            running = self._can_improve(
                running_sums, finished_scores, is_finished, count + 1, length_penalty
            )
            if room >= 0:
                running = running & self._alive(running_sums[:, 0])
            if count + 1 == max_tokens:
                running = torch.zeros_like(running)
            if not bool(running.all()):
                leaving = ~running
                found_tokens, found_lengths = finished_tokens, finished_lengths
                found_sums = finished_sums
                if room >= 0:
                    place = self._places(is_finished, cut_scores)
                    found_tokens = torch.cat([finished_tokens, cut_tokens], 1).gather(
                        1, place.unsqueeze(-1).expand(-1, -1, columns)
                    )
                    found_lengths = torch.cat([finished_lengths, cut_lengths], 1).gather(1, place)
                    found_sums = torch.cat([finished_sums, cut_scores], 1).gather(1, place)
                all_tokens[image[leaving]] = found_tokens[leaving]
                all_lengths[image[leaving]] = found_lengths[leaving]
                all_sums[image[leaving]] = found_sums[leaving]
                if self.quality is not None:
                    begin = count + 1 - len(recent)
                    states[image, begin : count + 1] = torch.stack(recent, 1)
                    sums[image, begin : count + 1] = torch.stack(recent_sums, 1)
                    recent.clear()
                    recent_sums.clear()
                if not bool(running.any()):
                    break
                order = compacted_order(running)
                image, mask = image[order], mask[order]
                running_tokens, running_sums = running_tokens[order], running_sums[order]
                finished_tokens, finished_scores = finished_tokens[order], finished_scores[order]
                finished_sums, finished_lengths = finished_sums[order], finished_lengths[order]
                is_finished, token, parent = is_finished[order], token[order], parent[order]
                if room >= 0:
                    characters, cut_lengths = characters[order], cut_lengths[order]
                    cut_tokens, cut_scores = cut_tokens[order], cut_scores[order]
                cache.select(order)
            mask = mask.gather(1, parent.unsqueeze(-1).expand(-1, -1, mask.shape[2]))
            mask = torch.cat([mask, new_entries.expand(len(image), -1, -1)], dim=2)
            hidden = self.decoder.step(token, start + count, cache, mask)
        each = all_sums.new_zeros([batch, num_beams, 0])
        if self.quality is not None:
            longest = max(1, int(all_lengths.max()))
            steps = torch.arange(longest, device=device)
            place = all_tokens[:, :, max_tokens : max_tokens + longest]  # [B, N, T]
            place = place * (steps < all_lengths.unsqueeze(-1))  # other tokens than its own: 0
            rows = torch.arange(batch, device=device)[:, None, None]
            states = states[rows, steps, place]  # [B, N, T, E]
            # A token's log-probability is the sum after it less that before it.
            before = sums[rows, steps, place]
            after = torch.cat([before[:, :, 1:], before[:, :, :1]], -1)
            last = (all_lengths - 1).clamp(min=0)
            after.scatter_(2, last.unsqueeze(-1), all_sums.unsqueeze(-1))
            each = after - before
        all_tokens = all_tokens[:, :, :max_tokens]
        if room >= 0:
            all_tokens = self._cleared(all_tokens, all_lengths)
        return all_tokens, all_lengths, all_sums, states, each

    @torch.jit.export
    def score(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of given tokens.

        Args:
            prefix: [B, K, E].
            tokens: int64 [B, T].

        Returns:
            float32 [B, T], in nats: of each token after the prefix and the tokens before it.
        """
        return self._read(prefix, tokens)[0]

    def _read(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, T] of given tokens [B, T], and the states before them.

        The states are [B, T, E], or [B, T, 0] without a quality head.
        """
        batch, start, _ = prefix.shape
        count = tokens.shape[1]
        hidden, cache = self.decoder.prefill(prefix, start + count)
        if count > 1:  # all tokens at once, each of which attends to those before it
            later = torch.full([count - 1, count - 1], float("-inf"), device=prefix.device).triu(1)
            mask = torch.cat([later.new_zeros([count - 1, start]), later], 1)
            mask = mask.expand(batch, -1, -1)
            depths = torch.arange(count - 1, device=prefix.device)
            states = self.decoder.step(tokens[:, :-1], start, cache, mask, depths)
            hidden = torch.cat([hidden, states], 1)  # [B, T, E]
        # A few rows at a time: the logits of all need T times the memory of a search's step.
        rows, ids = hidden.flatten(0, 1).split(64), tokens.reshape(-1, 1).split(64)
        log_probs: list[Tensor] = []
        for index in range(len(rows)):
            log_probs.append(self.decoder.output.score(rows[index], ids[index]))
        width = self._kept_width(hidden)
        return torch.cat(log_probs).view(batch, count), hidden[..., :width]

    def _log_probs(self, prefix: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities [B, M, T] of the tokens of captions, 0 behind the end."""
        batch, count, longest = tokens.shape
        each = self.score(prefix.repeat_interleave(count, 0), tokens.flatten(0, 1))
        place = torch.arange(longest, device=tokens.device)
        counted = place < lengths.unsqueeze(-1)  # [B, M, T]
        return each.view(batch, count, longest).masked_fill(~counted, 0.0)

    def _kept_width(self, hidden: Tensor) -> int:
        """How much of the decoder's states is kept: all of it for the quality head, or nothing."""
        return 0 if self.quality is None else hidden.shape[-1]

    def _room(self, prompt: Tensor | None, max_characters: int) -> int:
        """Characters that fit behind the prompt, or -1 for any number."""
        if max_characters == 0:
            return -1
        used = 0
        if prompt is not None:
            used = int(self._characters(prompt[:1], True).sum())
            used += int(self._characters(prompt[1:], False).sum())
        return max(0, max_characters - used)

    def _limit(self, room: int, at_start: bool) -> int:
        """Characters that a caption may have; the first token of a text always fits."""
        return 1 << 30 if at_start else room

    def _characters(self, tokens: Tensor, at_start: bool) -> Tensor:
        """Characters that each of these tokens adds to a text; in the shape of `tokens`."""
        assert self.spelling is not None, "a search without spelling cannot count characters"
        return self.spelling.characters(tokens, at_start)

    def _kept(self, tokens: Tensor, following: Tensor) -> Tensor:
        """Tokens that stay of cut captions; see `Spelling.kept`."""
        assert self.spelling is not None, "a search without spelling cannot cut captions"
        return self.spelling.kept(tokens, following)

    def _cleared(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Captions [..., T] without what stands behind their lengths [...]."""
        place = torch.arange(tokens.shape[-1], device=tokens.device)
        return tokens.masked_fill(place >= lengths.unsqueeze(-1), self.end_token_id)

    def _alive(self, sums: Tensor) -> Tensor:
        """Whether beams, by their sums, hold no token that was excluded."""
        return sums > self.excluded / 2

    def _places(self, is_finished: Tensor, cut_scores: Tensor) -> Tensor:
        """Which beams become the result: finished ones, then cut ones, then the same once more.

        Args:
            is_finished: bool [b, N], of the finished beams, which are sorted.
            cut_scores: float32 [b, N], sorted; not alive where there is none.

        Returns:
            int64 [b, N], places among N finished and N cut beams.
        """
        ended = is_finished.sum(1, keepdim=True)
        count = ended + self._alive(cut_scores).sum(1, keepdim=True)
        beams = is_finished.shape[1]
        place = torch.arange(beams, device=is_finished.device) % count.clamp(min=1)
        return torch.where(place < ended, place, place - ended + beams)

    def _forbidden_token(self, count: int, min_tokens: int) -> int:
        """The end token while the caption is shorter than `min_tokens`, or else -1."""
        return self.end_token_id if count < min_tokens else -1

    def _can_improve(
        self,
        running_sums: Tensor,
        finished_scores: Tensor,
        is_finished: Tensor,
        length: int,
        length_penalty: float,
    ) -> Tensor:
        """Whether, bool [b], the best running beam could still enter the finished beams."""
        best_running = running_sums[:, :1] / (float(length) ** length_penalty)
        worst_finished = torch.where(
            is_finished, finished_scores.min(dim=1, keepdim=True)[0], self.excluded
        )
        return (best_running > worst_finished).any(dim=1)


def compacted_order(running: Tensor) -> Tensor:
    """An order of the rows that stay in the batch, in which as few of them as possible move.

    Args:
        running: bool [B]; the b rows that are True stay.

    Returns:
        int64 [b], the row that comes to each place: a row below b keeps its place, and the others
        fill the gaps.
    """
    count = int(running.sum())
    order = torch.arange(count, device=running.device)
    order[~running[:count]] = running[count:].nonzero()[:, 0] + count
    return order
