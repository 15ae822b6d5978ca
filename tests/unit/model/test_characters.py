"""Captions of a limited number of characters: against a slow search, and as text."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from model.artifact import Artifact, random_numbers
from model.network.conversion import build_decoder
from model.network.search import Search
from model.network.spelling import Spelling, spelling_of
from model.options import BadOption, GenerationOptions
from tests.unit.model.test_search import (
    END,
    IMAGES,
    KINDS,
    LONGEST,
    VOCABULARY,
    language_model,
    prefixes,
    teacher_forced,
)
from training.captioner.tokenizer import train_tokenizer

LIMITS = (4, 9, 15, 40)


@functools.cache
def spelling() -> Spelling:
    """Tokens of 0 to 4 characters; half of them begin a word, and a tenth end a sentence."""
    generator = torch.Generator().manual_seed(2)
    later = torch.randint(0, 5, [VOCABULARY], generator=generator)
    later[END] = 0
    chance = torch.rand(2, VOCABULARY, generator=generator)
    begins = chance[0] < 0.5
    return Spelling((later - begins.long()).clamp(min=0), later, begins, chance[1] < 0.1)


@functools.cache
def search_of(kind: str) -> Search:
    search = Search(build_decoder(language_model()), END, spelling()).eval()
    return search if kind == "eager" else torch.jit.script(search)


@functools.cache
def next_log_probs(image: int, ids: tuple[int, ...]) -> Tensor:
    """[V] after these tokens."""
    model = language_model()
    words = model.transformer.wte(torch.tensor(ids, dtype=torch.int64))
    logits = model(inputs_embeds=torch.cat([prefixes()[image], words])[None]).logits
    return logits[0, -1].log_softmax(-1)


def characters(ids: tuple[int, ...]) -> int:
    return sum(
        int((spelling().later if place else spelling().first)[id_])
        for place, id_ in enumerate(ids)
        if id_ != END
    )


def cut(ids: tuple[int, ...], following: int) -> tuple[int, ...]:
    """The whole sentences of a caption, else its whole words, else all of it."""
    behind = [*ids[1:], following]
    words = [n + 1 for n, id_ in enumerate(behind) if spelling().begins_word[id_]]
    sentences = [n for n in words if spelling().ends_sentence[ids[n - 1]]]
    return ids[: max(sentences or words or [len(ids)])]


def slow_beams(image: int, beams: int, limit: int, penalty: float) -> list[tuple[int, ...]]:
    """The beam search as its docstrings describe it, one beam at a time."""
    running: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    cuts: list[tuple[tuple[int, ...], float]] = []
    for count in range(LONGEST):
        candidates = []
        for ids, total in running:
            best, tokens = next_log_probs(image, ids).topk(2 * beams)
            for place, (gain, token) in enumerate(zip(best.tolist(), tokens.tolist(), strict=True)):
                if ids and characters((*ids, token)) > limit:
                    if place == 0:
                        cuts.append((cut(ids, token), total / count**penalty))
                    continue
                candidates.append(((*ids, token), total + gain))
        candidates = sorted(candidates, key=lambda each: -each[1])[: 2 * beams]
        running = []
        for place, (ids, total) in enumerate(candidates):
            if ids[-1] == END or count + 1 == LONGEST:
                if place < beams:
                    finished.append((ids, total / (count + 1) ** penalty))
            elif len(running) < beams:
                running.append((ids, total))
        finished = sorted(finished, key=lambda each: -each[1])[:beams]
        full = len(finished) == beams
        if not running or (full and running[0][1] / (count + 1) ** penalty <= finished[-1][1]):
            break
    found = finished + sorted(cuts, key=lambda each: -each[1])[:beams]
    return [found[n % len(found)][0] for n in range(beams)]


def rows(result: tuple[Tensor, ...]) -> list[list[tuple[int, ...]]]:
    tokens, lengths, *_ = result
    return [
        [tuple(ids[:length]) for ids, length in zip(*image, strict=True)]
        for image in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("beams", "penalty"), [(2, 1.0), (5, 1.0), (5, 0.0), (8, -0.5)])
@torch.inference_mode()
def test_beams_are_those_of_the_slow_search(kind: str, limit: int, beams: int, penalty: float):
    result = search_of(kind)(prefixes(), beams, beams, LONGEST, 0, penalty, max_characters=limit)
    for image, found in enumerate(rows(result)):
        assert found == slow_beams(image, beams, limit, penalty)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", LIMITS)
@torch.inference_mode()
def test_a_single_caption_is_cut_where_its_next_token_does_not_fit(kind: str, limit: int):
    free = rows(search_of(kind)(prefixes(), 1, 1, LONGEST, 0, 1.0))
    for found, unlimited in zip(
        rows(search_of(kind)(prefixes(), 1, 1, LONGEST, 0, 1.0, max_characters=limit)),
        free,
        strict=True,
    ):
        ids = unlimited[0]
        fitting = [n for n in range(2, len(ids) + 1) if characters(ids[:n]) > limit]
        expected = cut(ids[: fitting[0] - 1], ids[fitting[0] - 1]) if fitting else ids
        assert found == [expected]


@pytest.mark.parametrize("beams", [1, 5])
@torch.inference_mode()
def test_a_caption_does_not_depend_on_its_batch(beams: int):
    limited = functools.partial(search_of("scripted"), max_characters=9)
    together = limited(prefixes(), beams, beams, LONGEST, 0, 1.0)
    for image in range(IMAGES):
        alone = limited(prefixes()[image : image + 1], beams, beams, LONGEST, 0, 1.0)
        assert rows(alone)[0] == rows(together)[image]
        torch.testing.assert_close(alone[2][0], together[2][image], atol=1e-4, rtol=0)


@pytest.mark.parametrize("beams", [1, 5])
@torch.inference_mode()
def test_log_probabilities_are_of_the_tokens_that_are_left(beams: int):
    result = search_of("eager")(prefixes(), beams, 1, LONGEST, 0, 1.0, max_characters=6)
    for prefix, found, log_prob in zip(prefixes(), rows(result), result[2][:, 0], strict=True):
        assert log_prob.item() == pytest.approx(teacher_forced(prefix, list(found[0])), abs=1e-4)


@torch.inference_mode()
def test_the_cases_above_are_cut_and_not_cut():
    cut_, whole = set(), set()
    for limit in LIMITS:
        for found in rows(
            search_of("eager")(prefixes(), 1, 1, LONGEST, 0, 1.0, max_characters=limit)
        ):
            (whole if found[0][-1] == END or len(found[0]) == LONGEST else cut_).add(limit)
    assert cut_ >= {4, 9}
    assert whole >= {15, 40}


@torch.inference_mode()
def test_draws_are_cut_alike():
    chances = random_numbers(5, 0, 3, LONGEST)
    drawing = (1, 3, LONGEST, 0, 1.0, 1.0, 0, 1.0, 0, 1.0, chances)
    free = rows(search_of("eager")(prefixes(), *drawing))
    limited = rows(search_of("eager")(prefixes(), *drawing, max_characters=8))
    for image in range(IMAGES):
        for ids, found in zip(free[image], limited[image], strict=True):
            over = [n for n in range(2, len(ids) + 1) if characters(ids[:n]) > 8]
            assert found == (cut(ids[: over[0] - 1], ids[over[0] - 1]) if over else ids)


@torch.inference_mode()
def test_a_prompt_counts():
    prompt = torch.tensor([5, 7])
    used = characters((5, 7))
    for beams in (1, 5):
        tokens, lengths, log_probs, _ = search_of("scripted")(
            prefixes(), beams, 1, LONGEST, 0, 1.0, prompt=prompt, max_characters=used + 5
        )
        for ids, length, log_prob, prefix in zip(
            tokens[:, 0].tolist(), lengths[:, 0].tolist(), log_probs[:, 0], prefixes(), strict=True
        ):
            assert ids[:2] == [5, 7]
            assert characters(tuple(ids[:length])) <= used + 5
            own = teacher_forced(prefix, ids[:length])
            assert log_prob.item() == pytest.approx(own, abs=1e-4)
    full = search_of("eager")(prefixes(), 5, 1, LONGEST, 4, 1.0, prompt=prompt, max_characters=used)
    assert full[1].min() >= 2


TEXTS = (
    "two red boats on a calm sea at sunset. a dog's ball, half-hidden!",
    "zwei Möwen über dem Meer. Größe? 3,5 m — schön…",
    "海の上の二隻の赤い船。犬がいます。",
    "два красных лодки 🚤🚤 на море.",
)


@functools.cache
def byte_level() -> Tokenizer:
    return train_tokenizer([TEXTS[0], TEXTS[1]], 300)


@functools.cache
def word_piece() -> Tokenizer:
    words = ["[UNK]", "[SEP]", "a", "red", "##dish", "boat", "##s", "sea", ".", ",", "船", "海"]
    tokenizer = Tokenizer(models.WordPiece({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[SEP]"])
    return tokenizer


@given(text=st.one_of(st.sampled_from(TEXTS), st.text(max_size=30)))
def test_the_characters_of_tokens_add_up_to_the_text(text: str):
    tokenizer = byte_level()
    ids = tokenizer.encode(" ".join(text.split())).ids
    written = spelling_of(tokenizer, tokenizer.get_vocab_size(), 0, False)
    count = sum(int((written.later if n else written.first)[id_]) for n, id_ in enumerate(ids))
    decoded = " ".join(tokenizer.decode(ids).split())
    assert count == len(decoded) or decoded != " ".join(text.split())


def test_a_tokenizer_of_word_pieces_is_read_by_decoding():
    tokenizer = word_piece()
    written = spelling_of(tokenizer, 14, 1, False)
    ids = tokenizer.encode("a reddish boat, sea.").ids
    count = sum(int((written.later if n else written.first)[id_]) for n, id_ in enumerate(ids))
    assert count == len("a reddish boat, sea.")
    pieces = [tokenizer.id_to_token(int(n)) for n in written.begins_word.nonzero()[:, 0]]
    assert "red" in pieces
    assert "##dish" not in pieces
    assert written.later[1] == 0  # the end of a caption
    assert written.later[13] == 0  # no token of the tokenizer


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        (TEXTS[0], 45, "two red boats on a calm sea at sunset."),
        (TEXTS[0], 36, "two red boats on a calm sea at"),
        (TEXTS[0], 30, "two red boats on a calm sea at"),
        (TEXTS[0], 29, "two red boats on a calm sea"),
        ("half-hidden in the grass", 6, "half-"),
        (TEXTS[2], 11, "海の上の二隻の赤い船。"),
        (TEXTS[2], 8, "海の上の二隻の赤"),
    ],
)
def test_text_is_cut_at_sentences_then_words(text: str, limit: int, expected: str):
    tokenizer = byte_level()
    written = spelling_of(tokenizer, tokenizer.get_vocab_size(), 0, False)
    ids = tokenizer.encode(text).ids
    sizes = [int((written.later if n else written.first)[id_]) for n, id_ in enumerate(ids)]
    over = next(n for n in range(len(ids)) if sum(sizes[: n + 1]) > limit)
    kept = written.kept(torch.tensor([ids[:over]]), torch.tensor([ids[over]]))
    found = tokenizer.decode(ids[: int(kept)]).strip()
    assert found.replace("\ufffd", "") == expected


@pytest.mark.parametrize("limit", [16, 25, 60, 1000])
@pytest.mark.parametrize("given", [{"num_beams": 1}, {"num_beams": 4, "num_captions": 4}])
def test_no_caption_is_longer_than_asked(tiny_artifact: Path, limit: int, given: dict[str, int]):
    artifact = Artifact.load(tiny_artifact)
    features = artifact.encode(torch.randn(3, 3, *[artifact.preprocessing.size] * 2))
    options = artifact.defaults.updated({**given, "max_characters": limit, "max_tokens": 30})
    reasons = set()
    for image in artifact.caption(features, options):
        for caption in image:
            assert 0 < len(caption.text) <= limit
            assert caption.tokens > 0
            reasons.add(caption.finish_reason)
    assert reasons <= {"end", "length", "characters"}


def test_limits_that_hold_no_caption_are_refused(tiny_artifact: Path):
    with pytest.raises(BadOption, match="max_characters is '15'; it must be 0 .* from 16 to 1000"):
        GenerationOptions().updated({"max_characters": 15})
    artifact = Artifact.load(tiny_artifact)
    options = GenerationOptions().updated({"max_characters": 16, "prompt": "a red boat on the sea"})
    with pytest.raises(BadOption, match="at least the 21 characters of the prompt"):
        artifact.check(options)
