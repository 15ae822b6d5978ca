"""Repetition rules and draws: against Hugging Face's, in any batch, and by their probability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model.artifact import random_numbers
from model.network.choice import drawn
from tests.unit.model.test_search import (
    END,
    IMAGES,
    KINDS,
    LONGEST,
    PREFIX,
    language_model,
    prefixes,
    search_of,
    teacher_forced,
)

RULES = [
    # beams, min_tokens, repetition_penalty, no_repeat_ngram_size
    (1, 0, 1.5, 0),
    (1, 6, 0.7, 0),
    (1, 0, 1.0, 1),
    (1, 0, 1.0, 2),
    (1, 5, 1.3, 3),
    (4, 0, 1.5, 0),
    (4, 0, 1.0, 2),
    (5, 6, 1.2, 1),
    (8, 3, 0.8, 3),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beams", "shortest", "penalty", "ngram"), RULES)
@torch.inference_mode()
def test_tokens_under_a_rule_are_those_of_hugging_face(
    kind: str, beams: int, shortest: int, penalty: float, ngram: int
):
    tokens, lengths, log_probs, _ = search_of(kind)(
        prefixes(), beams, 1, LONGEST, shortest, 1.0, penalty, ngram
    )
    rows = language_model().generate(
        inputs_embeds=prefixes(),
        attention_mask=torch.ones(IMAGES, PREFIX, dtype=torch.int64),
        do_sample=False,
        num_beams=beams,
        max_new_tokens=LONGEST,
        min_new_tokens=shortest or None,
        repetition_penalty=penalty,
        no_repeat_ngram_size=ngram,
        eos_token_id=END,
        pad_token_id=END,
    )
    theirs = [ids[: ids.index(END) + 1] if END in ids else ids for ids in rows.tolist()]
    ours = [ids[:length] for ids, length in zip(tokens[:, 0].tolist(), lengths[:, 0], strict=True)]
    assert ours == theirs
    for prefix, ids, log_prob in zip(prefixes(), ours, log_probs[:, 0], strict=True):
        if beams == 1 or penalty != 1.0 or ngram:  # the captioner's own, without the penalty
            assert log_prob.item() == pytest.approx(teacher_forced(prefix, ids), abs=1e-4)


@torch.inference_mode()
def test_the_rules_above_change_captions():
    plain = search_of("eager")(prefixes(), 1, 1, LONGEST, 0, 1.0)[0]
    for penalty, ngram in ((1.5, 0), (1.0, 2)):
        other = search_of("eager")(prefixes(), 1, 1, LONGEST, 0, 1.0, penalty, ngram)[0]
        assert other.shape != plain.shape or (other != plain).any()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_seed_draws_the_same_captions_alone_and_in_any_batch(kind: str):
    search, drawing = search_of(kind), (1, 3, LONGEST, 0, 1.0, 1.2, 2, 0.9, 20, 0.95)
    chances = random_numbers(5, 0, 3, LONGEST)

    def captions(rows: list[int]) -> list[list[list[int]]]:
        tokens, lengths, _, _ = search(prefixes()[rows], *drawing, chances)
        return [
            [ids[:length] for ids, length in zip(*image, strict=True)]
            for image in zip(tokens.tolist(), lengths.tolist(), strict=True)
        ]

    together = captions(list(range(IMAGES)))
    backwards = captions(list(reversed(range(IMAGES))))
    assert backwards[::-1] == together
    assert [captions([row])[0] for row in range(IMAGES)] == together
    assert any(len({tuple(ids) for ids in image}) == 3 for image in together)


@torch.inference_mode()
def test_a_caption_does_not_depend_on_how_many_are_drawn():
    drawing = (LONGEST, 0, 1.0, 1.0, 0, 1.0, 0, 1.0)
    one = search_of("eager")(prefixes(), 1, 1, *drawing, random_numbers(5, 0, 1, LONGEST))
    three = search_of("eager")(prefixes(), 1, 3, *drawing, random_numbers(5, 0, 3, LONGEST))
    width = one[0].shape[2]
    assert (three[0][:, :1, :width] == one[0]).all()
    assert torch.allclose(three[2][:, :1], one[2], atol=1e-4)


@torch.inference_mode()
def test_a_draw_from_one_token_is_the_greedy_caption():
    greedy = search_of("eager")(prefixes(), 1, 1, LONGEST, 0, 1.0)
    chances = random_numbers(9, 0, 1, LONGEST)
    for limits in ((1, 1.0), (0, 0.01)):
        found = search_of("eager")(prefixes(), 1, 1, LONGEST, 0, 1.0, 1.0, 0, 1.0, *limits, chances)
        assert (found[0] == greedy[0]).all()
        assert torch.allclose(found[2], greedy[2], atol=1e-4)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.5, 7, 1.0), (1.0, 0, 0.6)]
)
def test_tokens_are_drawn_by_the_probability_of_hugging_face(
    temperature: float, top_k: int, top_p: float
):
    logits = 2 * torch.randn(1, 30, generator=torch.Generator().manual_seed(3))
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    shares = expected.softmax(-1)[0]
    chances = (torch.arange(20_000) + 0.5) / 20_000  # evenly, so that a share is met closely
    tokens = drawn(logits.expand(20_000, -1), chances, temperature, top_k, top_p)
    found = tokens[:, 0].bincount(minlength=30) / 20_000
    assert torch.allclose(found, shares, atol=2e-4)


@given(
    chance=st.floats(0, 1, exclude_max=True),
    scale=st.floats(0.01, 100),
    top_k=st.integers(0, 6),
    top_p=st.floats(0.01, 1),
)
def test_a_drawn_token_is_always_one_that_may_be_drawn(
    chance: float, scale: float, top_k: int, top_p: float
):
    logits = torch.tensor([[0.0, float("-inf"), -scale, scale]])
    token = int(drawn(logits, torch.tensor([chance]), 1.0, top_k, top_p))
    assert token in (0, 2, 3)
    if top_k == 1:
        assert token == 3
