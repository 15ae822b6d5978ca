"""Captions with a given beginning, as Hugging Face writes them behind the same embeddings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from model.artifact import Artifact, random_numbers
from model.checkpoint import Checkpoint
from model.options import BadOption, GenerationOptions
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

PROMPT = [5, 17, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beams", "penalty", "ngram"), [(1, 1.0, 0), (4, 1.0, 0), (5, 1.3, 2)])
@torch.inference_mode()
def test_tokens_behind_a_prompt_are_those_of_hugging_face(
    kind: str, beams: int, penalty: float, ngram: int
):
    model, prompt = language_model(), torch.tensor(PROMPT)
    tokens, lengths, log_probs, _ = search_of(kind)(
        prefixes(), beams, 1, LONGEST, 0, 1.0, penalty, ngram, 0.0, 0, 1.0, None, prompt
    )
    words = model.transformer.wte(prompt).expand(IMAGES, -1, -1)
    rows = model.generate(
        inputs_embeds=torch.cat([prefixes(), words], 1),
        attention_mask=torch.ones(IMAGES, PREFIX + len(PROMPT), dtype=torch.int64),
        do_sample=False,
        num_beams=beams,
        max_new_tokens=LONGEST,
        repetition_penalty=penalty,
        no_repeat_ngram_size=ngram,
        eos_token_id=END,
        pad_token_id=END,
    )
    theirs = [ids[: ids.index(END) + 1] if END in ids else ids for ids in rows.tolist()]
    ours = [ids[:length] for ids, length in zip(tokens[:, 0].tolist(), lengths[:, 0], strict=True)]
    assert ours == [PROMPT + ids for ids in theirs]
    for prefix, ids, log_prob in zip(prefixes(), ours, log_probs[:, 0], strict=True):
        assert log_prob.item() == pytest.approx(teacher_forced(prefix, ids), abs=1e-4)


@torch.inference_mode()
def test_every_drawn_caption_has_the_prompt():
    drawing = (1, 3, LONGEST, 0, 1.0, 1.0, 0, 1.0, 0, 1.0, random_numbers(5, 0, 3, LONGEST))
    tokens, _, _, _ = search_of("eager")(prefixes(), *drawing, torch.tensor(PROMPT))
    assert (tokens[:, :, : len(PROMPT)] == torch.tensor(PROMPT)).all()


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


def test_the_text_begins_with_the_prompt(artifact: Artifact):
    side = artifact.preprocessing.size
    features = artifact.encode(torch.zeros(2, 3, side, side))
    for prompt in ("two red boats", " two red boats  "):
        options = artifact.defaults.updated({"prompt": prompt})
        for (caption,) in artifact.caption(features, options):
            assert caption.text.startswith("two red boats")
            assert caption.tokens > len(artifact.prompt_tokens(prompt))


def test_a_prompt_that_there_is_no_room_for_is_refused_with_the_limit(artifact: Artifact):
    longest = GenerationOptions(num_beams=1, max_tokens=int(artifact.upper_limit("max_tokens")))
    with pytest.raises(BadOption, match=r"at most 0 tokens where max_tokens is \d+; it has \d"):
        artifact.check(dataclasses.replace(longest, prompt="two red boats"))
    artifact.check(dataclasses.replace(longest, max_tokens=30, prompt="two red boats"))


def test_the_end_of_a_caption_is_no_beginning(artifact: Artifact, tiny_checkpoint: Path):
    end = Checkpoint.load(tiny_checkpoint).tokenizer.id_to_token(artifact.info["end_token_id"])
    with pytest.raises(BadOption, match="text without the end of a caption"):
        artifact.check(artifact.defaults.updated({"prompt": f"a {end}"}))
