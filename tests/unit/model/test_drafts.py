"""Drafts of n-grams: counted as a loop counts, and captions with them are those without."""

from __future__ import annotations

import collections
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from model.artifact import Artifact
from model.checkpoint import DRAFTS, Checkpoint
from model.export import eager_artifact
from model.network.conversion import build_decoder, build_search
from model.network.drafts import GUESSES, ORDER, WIDTH, Drafts, count_drafts
from model.network.search import Search
from model.options import GenerationOptions
from model.pretrained.weights_file import read_published
from model.refusal import Refusal
from tests.unit.model.test_search import (
    END,
    IMAGES,
    KINDS,
    LONGEST,
    VOCABULARY,
    language_model,
    prefixes,
)

GOLDEN = Path(__file__).parents[2] / "golden"
Captions = list[list[int]]


def drafts_of(captions: Captions, vocabulary: int, end: int) -> Drafts:
    """Each caption twice, so that every n-gram is kept."""
    flat = [token for ids in captions * 2 for token in (ids if ids[-1] == end else [*ids, end])]
    return Drafts(**count_drafts(np.array(flat), end, vocabulary), vocabulary=vocabulary)


@functools.cache
@torch.inference_mode()
def greedy(longest: int) -> list[tuple[list[int], float]]:
    search = Search(build_decoder(language_model()), END).eval()
    tokens, lengths, log_probs, _ = search(prefixes(), 1, 1, longest, 0, 1.0)
    return [
        (ids[0][: length[0]], log_prob[0])
        for ids, length, log_prob in zip(
            tokens.tolist(), lengths.tolist(), log_probs.tolist(), strict=True
        )
    ]


SOURCES = {
    "the captions themselves": lambda own: own,
    "one of them": lambda own: own[:1],
    "their words in another order": lambda own: [[*ids[-2::-1], END] for ids in own],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("longest", [1, 2, 5, LONGEST])
@torch.inference_mode()
def test_captions_with_drafts_are_those_without(kind: str, source: str, longest: int):
    own = [ids for ids, _ in greedy(LONGEST)]
    drafts = drafts_of(SOURCES[source](own), VOCABULARY, END)
    search = Search(build_decoder(language_model()), END, None, drafts).eval()
    if kind == "scripted":
        search = torch.jit.script(search)
    for image, (ids, log_prob) in enumerate(greedy(longest)):
        found = search(prefixes()[image : image + 1], 1, 1, longest, 0, 1.0)
        assert found[0].tolist() == [[ids]]
        assert found[1].item() == len(ids)
        assert found[2].item() == pytest.approx(log_prob, abs=1e-4)


@torch.inference_mode()
def test_known_captions_take_fewer_steps(monkeypatch: pytest.MonkeyPatch):
    own = [ids for ids, _ in greedy(LONGEST)]
    search = Search(build_decoder(language_model()), END, None, drafts_of(own, VOCABULARY, END))
    steps = []
    step = search.decoder.step
    monkeypatch.setattr(search.decoder, "step", lambda *given: steps.append(1) or step(*given))
    for image in range(IMAGES):
        search(prefixes()[image : image + 1], 1, 1, LONGEST, 0, 1.0)
    assert len(steps) < 0.6 * sum(len(ids) - 1 for ids in own)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
@torch.inference_mode()
def test_captions_of_the_original_are_the_same_with_drafts(name: str):
    cases = json.loads((GOLDEN / f"{name}_cases.json").read_text())
    features = load_file(GOLDEN / f"{name}_cases.safetensors")["features"]
    captioner = read_published(GOLDEN / f"{name}_weights.pt", cases["clip_normalize"])
    stop, limit = cases["stop_token_id"], cases["max_new_tokens"]
    vocabulary = captioner.gpt2.config.vocab_size
    # Half of the captions: the others are written with guesses that are often wrong.
    known = drafts_of(cases["greedy"][::2], vocabulary, stop)
    search = build_search(captioner, drafts=known)
    search.end_token_id = stop
    for prefix, expected in zip(captioner.prefix(features), cases["greedy"], strict=True):
        tokens, lengths, _, _ = search(prefix[None], 1, 1, limit, 0, 1.0)
        assert tokens[0, 0, : lengths[0, 0]].tolist() == expected


tokens_ = st.integers(0, 5)


@settings(deadline=None)
@given(captions=st.lists(st.lists(tokens_, max_size=7), min_size=1, max_size=12))
def test_n_grams_are_counted_as_a_loop_counts_them(captions: Captions):
    end, vocabulary = 6, 7
    counts: dict[tuple[int, ...], collections.Counter[int]] = {}
    for ids in captions:
        whole = [end, *ids, end]
        for at in range(1, len(whole)):
            for order in range(1, min(ORDER, at) + 1):
                context = tuple(whole[at - order : at])
                counts.setdefault(context, collections.Counter())[whole[at]] += 1
    found = count_drafts(np.array([t for ids in captions for t in [*ids, end]]), end, vocabulary)
    rows = dict(zip(found["keys"].tolist(), range(len(found["keys"])), strict=True))
    expected = 0
    for context, following in counts.items():
        if len(context) > 1 and following.total() == 1:
            continue
        expected += 1
        key = functools.reduce(lambda key, token: key * (vocabulary + 1) + token + 1, context, 0)
        row = rows[key]
        kept = [n for n in found["following"][row].tolist() if n >= 0]
        best = [count for _, count in following.most_common(WIDTH)]
        assert [following[token] for token in kept] == best
        shares = [count / following.total() for count in best]
        assert found["shares"][row][: len(best)].tolist() == pytest.approx(shares)
    assert expected == len(rows)


def test_a_tree_begins_with_what_is_likeliest():
    end, boat, sea, red, calm = 0, 1, 2, 3, 4
    captions = [[red, boat, end]] * 5 + [[red, sea, end]] * 3 + [[calm, sea, end]] * 4
    drafts = drafts_of(captions, 5, end)
    tokens, parents = drafts.tree([end], 8)
    assert list(zip(tokens, parents, strict=True))[:3] == [(red, -1), (boat, 0), (calm, -1)]
    assert len(tokens) <= GUESSES
    assert end not in tokens
    assert drafts.tree([end, red], 1)[1] == [-1, -1]
    assert drafts.tree([end, red], 0) == ([], [])


def test_a_checkpoint_carries_its_drafts_into_the_artifact(tiny_checkpoint: Path, tmp_path: Path):
    checkpoint = Checkpoint.load(tiny_checkpoint)
    artifact = eager_artifact(checkpoint)
    side = artifact.preprocessing.size
    pixels = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(2))
    features = artifact.encode(pixels)
    options = GenerationOptions(num_beams=1, max_tokens=20)
    plain = [artifact.tokens(features[[row]], options)[0] for row in range(4)]
    end = artifact.info["end_token_id"]
    flat = np.array([token for ids in plain * 2 for token in [*ids, end]])
    checkpoint.drafts = count_drafts(flat, end, artifact.info["vocabulary"])
    checkpoint.save(tmp_path / "with")
    with_drafts: Artifact = eager_artifact(Checkpoint.load(tmp_path / "with"))
    assert with_drafts.module.search.drafts is not None
    assert [with_drafts.tokens(features[[row]], options)[0] for row in range(4)] == plain


def test_damaged_drafts_are_refused(tiny_checkpoint: Path, tmp_path: Path):
    checkpoint = Checkpoint.load(tiny_checkpoint)
    checkpoint.drafts = count_drafts(np.array([1, 2, 0] * 3), 0, 5)
    checkpoint.save(tmp_path / "c")
    file = tmp_path / "c" / DRAFTS
    good = load_file(file)
    save_file({**good, "following": good["following"] + 10**6}, file)
    with pytest.raises(Refusal, match="has the token 100000., but the model only"):
        Checkpoint.load(tmp_path / "c")
    save_file({"keys": good["keys"]}, file)
    with pytest.raises(Refusal, match="does not hold keys, following, shares"):
        Checkpoint.load(tmp_path / "c")
    file.write_bytes(b"nonsense")
    with pytest.raises(Refusal, match="is damaged"):
        Checkpoint.load(tmp_path / "c")
