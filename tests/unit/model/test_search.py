"""Greedy and beam search against Hugging Face's `generate`, eager and scripted."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from model.network.conversion import build_decoder
from model.network.search import Search, compacted_order

END, VOCABULARY, WIDTH, PREFIX, IMAGES, LONGEST = 3, 40, 32, 4, 8, 14
SEED, LEAN = 4, 1.0
KINDS = ("eager", "scripted")
SETTINGS = [
    # beams, min_tokens, length_penalty
    (1, 0, 1.0),
    (1, 6, 1.0),
    (2, 0, 1.0),
    (2, 5, 0.0),
    (5, 0, 1.0),
    (5, 0, 0.0),
    (5, 0, -1.5),
    (5, 4, 2.0),
    (8, 0, 0.6),
    (8, 3, -0.5),
]


@functools.cache
def language_model() -> GPT2LMHeadModel:
    """Large weights, and a leaning to the end token: captions differ, and end early and late."""
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=96,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        initializer_range=0.25,
        bos_token_id=END,
        eos_token_id=END,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.ln_f.bias += LEAN * model.transformer.wte.weight[END]
    return model


@functools.cache
def search_of(kind: str) -> Search:
    search = Search(build_decoder(language_model()), END).eval()
    return search if kind == "eager" else torch.jit.script(search)


@functools.cache
@torch.inference_mode(False)
def prefixes() -> Tensor:
    """[IMAGES, PREFIX, WIDTH]."""
    return torch.randn(IMAGES, PREFIX, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def found(
    kind: str,
    prefix: Tensor,
    beams: int,
    captions: int = 1,
    longest: int = LONGEST,
    shortest: int = 0,
    penalty: float = 1.0,
) -> list[list[tuple[list[int], float]]]:
    """Per image its captions as token ids up to the end token, with their log-probabilities."""
    tokens, lengths, log_probs, _ = search_of(kind)(
        prefix, beams, captions, longest, shortest, penalty
    )
    assert tokens.shape == (len(prefix), captions, int(lengths.max()))
    return [
        [(ids[:length], log_prob) for ids, length, log_prob in zip(*image, strict=True)]
        for image in zip(tokens.tolist(), lengths.tolist(), log_probs.tolist(), strict=True)
    ]


@functools.cache
def generated(beams: int, captions: int, shortest: int, penalty: float) -> list[list[list[int]]]:
    """The same by Hugging Face."""
    rows = language_model().generate(
        inputs_embeds=prefixes(),
        attention_mask=torch.ones(IMAGES, PREFIX, dtype=torch.int64),
        do_sample=False,
        num_beams=beams,
        num_return_sequences=captions,
        max_new_tokens=LONGEST,
        min_new_tokens=shortest or None,
        length_penalty=penalty if beams > 1 else None,
        eos_token_id=END,
        pad_token_id=END,
    )
    ended = [ids[: ids.index(END) + 1] if END in ids else ids for ids in rows.tolist()]
    return [ended[start : start + captions] for start in range(0, len(ended), captions)]


@torch.inference_mode()
def teacher_forced(prefix: Tensor, ids: list[int]) -> float:
    """Log-probability of these tokens behind a prefix [K, E], by Hugging Face's model."""
    model = language_model()
    words = model.transformer.wte(torch.tensor(ids[:-1], dtype=torch.int64))
    logits = model(inputs_embeds=torch.cat([prefix, words])[None]).logits[0, PREFIX - 1 :]
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beams", "shortest", "penalty"), SETTINGS)
def test_tokens_are_those_of_hugging_face(kind: str, beams: int, shortest: int, penalty: float):
    ours = found(kind, prefixes(), beams, shortest=shortest, penalty=penalty)
    theirs = generated(beams, 1, shortest, penalty)
    assert [[ids for ids, _ in image] for image in ours] == theirs


def test_the_cases_above_end_early_and_late():
    lengths = {len(image[0]) for image in generated(1, 1, 0, 1.0)}
    assert min(lengths) < 6
    assert max(lengths) == LONGEST
    assert min(len(image[0]) for image in generated(1, 1, 6, 1.0)) > 6
    assert generated(5, 1, 0, 0.0) != generated(5, 1, 4, 2.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beams", "shortest", "penalty"), [(1, 6, 1.0), (5, 4, 2.0), (8, 0, -1.0)])
def test_log_probabilities_are_those_of_the_model(
    kind: str, beams: int, shortest: int, penalty: float
):
    captions = min(beams, 3)
    images = found(kind, prefixes(), beams, captions, shortest=shortest, penalty=penalty)
    for prefix, image in zip(prefixes(), images, strict=True):
        for ids, log_prob in image:
            assert log_prob == pytest.approx(teacher_forced(prefix, ids), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 5, 8])
def test_a_batch_of_eight_is_eight_batches_of_one(kind: str, beams: int):
    together = found(kind, prefixes(), beams, min(beams, 2))
    for row, image in enumerate(together):
        (alone,) = found(kind, prefixes()[row : row + 1], beams, min(beams, 2))
        assert [ids for ids, _ in image] == [ids for ids, _ in alone]
        assert [log for _, log in image] == pytest.approx([log for _, log in alone], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 5])
@torch.inference_mode()
def test_rows_after_the_end_hold_the_end_token(beams: int):
    tokens, lengths, _, _ = search_of("eager")(prefixes(), beams, 1, LONGEST, 0, 1.0)
    behind = torch.arange(tokens.shape[2]) >= lengths.unsqueeze(-1)
    assert behind.any()  # some row ended before another
    assert (tokens[behind] == END).all()


@torch.inference_mode()
def test_decoding_stops_when_every_row_has_ended(monkeypatch: pytest.MonkeyPatch):
    search, steps = search_of("eager"), []
    step = search.decoder.step
    monkeypatch.setattr(search.decoder, "step", lambda *given: (steps.append(1), step(*given))[1])
    ended = [row for row, image in enumerate(generated(1, 1, 0, 1.0)) if len(image[0]) < LONGEST]
    for row in ended:
        steps.clear()
        _, lengths, _, _ = search(prefixes()[row : row + 1], 1, 1, 64, 0, 1.0)
        assert len(steps) == int(lengths.max()) - 1
    steps.clear()
    search(prefixes()[ended], 5, 1, 64, 0, 0.0)
    assert len(steps) < 63


@pytest.mark.parametrize("beams", [1, 5])
@torch.inference_mode()
def test_an_image_whose_caption_is_found_costs_no_more_steps(
    beams: int, monkeypatch: pytest.MonkeyPatch
):
    search, rows = search_of("eager"), []
    step = search.decoder.step
    monkeypatch.setattr(
        search.decoder,
        "step",
        lambda tokens, *more: (rows.append(len(tokens)), step(tokens, *more))[1],
    )
    alone = []
    for row in range(IMAGES):
        rows.clear()
        search(prefixes()[row : row + 1], beams, 1, LONGEST, 0, 1.0)
        alone.append(len(rows))
    rows.clear()
    search(prefixes(), beams, 1, LONGEST, 0, 1.0)
    assert len(set(alone)) > 1  # some are found before others
    assert rows == [sum(steps > number for steps in alone) for number in range(max(alone))]


@given(stays=st.lists(st.booleans(), max_size=12))
def test_compacting_moves_as_few_rows_as_possible(stays: list[bool]):
    order = compacted_order(torch.tensor(stays, dtype=torch.bool)).tolist()
    assert sorted(order) == [row for row, stay in enumerate(stays) if stay]
    assert all(order[row] == row for row in range(len(order)) if stays[row])


@pytest.mark.parametrize("kind", KINDS)
def test_several_captions_are_different_and_best_first(kind: str):
    theirs = generated(5, 4, 0, 1.0)
    for image, expected in zip(found(kind, prefixes(), 5, 4), theirs, strict=True):
        assert [ids for ids, _ in image] == expected
        assert len({tuple(ids) for ids, _ in image}) == 4
        means = [log_prob / len(ids) for ids, log_prob in image]
        assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("beams", [2, 8])
def test_fewer_captions_are_the_first_of_more(beams: int):
    more = found("eager", prefixes(), beams, 2)
    fewer = found("eager", prefixes(), beams, 1)
    assert [image[0][0] for image in more] == [image[0][0] for image in fewer]


@pytest.mark.parametrize("penalty", [-5.0, 5.0])
@pytest.mark.parametrize("shortest", [0, 60])
def test_the_ends_of_the_penalty_s_range_give_real_captions(penalty: float, shortest: int):
    images = found("eager", prefixes(), 8, 8, longest=64, shortest=shortest, penalty=penalty)
    for prefix, image in zip(prefixes(), images, strict=True):
        scores = []
        for ids, log_prob in image:
            assert max(shortest, 1) <= len(ids) <= 64
            assert log_prob == pytest.approx(teacher_forced(prefix, ids), abs=1e-3)
            scores.append(log_prob / len(ids) ** penalty)
        assert scores == sorted(scores, reverse=True)


def test_one_token_is_a_caption():
    for beams in (1, 3):
        for image in found("eager", prefixes(), beams, longest=1):
            assert len(image[0][0]) == 1
