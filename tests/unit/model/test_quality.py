"""The quality head: against a slow obvious way, alone and in a batch, eager and scripted, saved."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.artifact import Artifact, random_numbers
from model.checkpoint import Checkpoint
from model.export import eager_artifact, export_torchscript
from model.network.conversion import build_decoder
from model.network.drafts import Drafts, count_drafts
from model.network.quality import QualityHead, logit
from model.network.search import Search
from model.options import GenerationOptions
from model.quality_file import HEAD, RECORD, Quality
from model.refusal import Refusal
from tests.unit.model.test_characters import spelling
from tests.unit.model.test_search import (
    END,
    LONGEST,
    PREFIX,
    VOCABULARY,
    WIDTH,
    language_model,
    prefixes,
)

KINDS = ("eager", "scripted")
PROMPT = (7, 12)
#: Name -> beams, captions, repetition penalty, n-grams, temperature, prompt, most characters.
CASES = {
    "greedy": (1, 1, 1.0, 0, 0.0, (), 0),
    "greedy by rule": (1, 1, 1.3, 2, 0.0, (), 0),
    "beam": (5, 5, 1.0, 0, 0.0, (), 0),
    "beam by rule": (4, 3, 1.3, 2, 0.0, (), 0),
    "draws": (1, 3, 1.0, 0, 1.2, (), 0),
    "prompt, greedy": (1, 1, 1.0, 0, 0.0, PROMPT, 0),
    "prompt, beam": (3, 2, 1.0, 0, 0.0, PROMPT, 0),
    "prompt, draws": (1, 3, 1.0, 0, 1.2, PROMPT, 0),
    "greedy, cut": (1, 1, 1.0, 0, 0.0, (), 9),
    "beam, cut": (5, 3, 1.0, 0, 0.0, (), 6),
    "draws, cut": (1, 3, 1.0, 0, 1.2, (), 9),
    "prompt, beam, cut": (4, 2, 1.3, 0, 0.0, PROMPT, 12),
}


@functools.cache
def head() -> QualityHead:
    """Random weights, large enough that the qualities differ."""
    torch.manual_seed(3)
    made = QualityHead(WIDTH, 12).eval().requires_grad_(False)
    made.out.bias -= 2
    made.slope.fill_(0.7)
    made.offset.fill_(1.5)
    return made


@functools.cache
def search_of(kind: str) -> Search:
    search = Search(build_decoder(language_model()), END, spelling(), None, head()).eval()
    return search if kind == "eager" else torch.jit.script(search)


@torch.inference_mode()
def found(kind: str, case: str, prefix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    beams, captions, repetition, ngram, temperature, prompt, characters = CASES[case]
    chances = random_numbers(9, 0, captions, LONGEST) if temperature else None
    given = torch.tensor(prompt) if prompt else None
    return search_of(kind)(
        *(prefix, beams, captions, LONGEST, 0, 1.0, repetition, ngram, temperature),
        *(0, 1.0, chances, given, characters),
    )


@torch.inference_mode()
def judged_slowly(prefix: Tensor, ids: list[int]) -> float:
    """Quality of one caption behind one prefix [K, E]: GPT-2 reads it again, token by token."""
    model, own = language_model(), head()
    words = model.transformer.wte(torch.tensor(ids[:-1], dtype=torch.int64))
    read = model.transformer(inputs_embeds=torch.cat([prefix, words])[None]).last_hidden_state[0]
    states = read[PREFIX - 1 :]
    log_probs = model.lm_head(states).log_softmax(-1)
    right = torch.tensor(0.0)
    for place, token in enumerate(ids):
        after = states[place + 1] if place + 1 < len(ids) else torch.zeros(WIDTH)
        hidden = own.first(torch.cat([states[place], after, log_probs[place, token][None]]))
        gelu = torch.nn.functional.gelu
        wrong = torch.sigmoid(own.out(gelu(own.middle(gelu(hidden)))))[0]
        right = right + torch.log(1 - wrong)
    odds = right - torch.log(1 - right.exp())
    return torch.sigmoid(own.slope * odds + own.offset).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_quality_is_that_of_reading_the_caption_again(kind: str, case: str):
    tokens, lengths, _, qualities = found(kind, case, prefixes())
    assert qualities.shape == lengths.shape
    everything = []
    for prefix, image, sizes, own in zip(prefixes(), tokens, lengths, qualities, strict=True):
        for ids, length, quality in zip(image.tolist(), sizes.tolist(), own.tolist(), strict=True):
            assert quality == pytest.approx(judged_slowly(prefix, ids[:length]), abs=2e-4)
            everything.append(quality)
    assert max(everything) - min(everything) > 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_quality_does_not_depend_on_the_rest_of_the_batch(kind: str, case: str):
    together = found(kind, case, prefixes())[3]
    for row in range(len(prefixes())):
        alone = found(kind, case, prefixes()[row : row + 1])[3]
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_head_changes_nothing_else(case: str):
    plain = Search(build_decoder(language_model()), END, spelling()).eval()
    with_head = found("eager", case, prefixes())
    beams, captions, repetition, ngram, temperature, prompt, characters = CASES[case]
    chances = random_numbers(9, 0, captions, LONGEST) if temperature else None
    with torch.inference_mode():
        without = plain(
            *(prefixes(), beams, captions, LONGEST, 0, 1.0, repetition, ngram, temperature),
            *(0, 1.0, chances, torch.tensor(prompt) if prompt else None, characters),
        )
    assert all(map(torch.equal, with_head[:3], without[:3]))
    assert without[3].shape == (len(prefixes()), 0)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_guessed_captions_have_the_same_quality(kind: str):
    expected = found("eager", "greedy", prefixes())
    captions = expected[0].flatten()
    drafts = Drafts(**count_drafts(captions.numpy(), END, VOCABULARY), vocabulary=VOCABULARY)
    search = Search(build_decoder(language_model()), END, None, drafts, head()).eval()
    search = search if kind == "eager" else torch.jit.script(search)
    for row, prefix in enumerate(prefixes()):
        tokens, lengths, _, quality = search(prefix[None], 1, 1, LONGEST, 0, 1.0)
        assert torch.equal(lengths[0], expected[1][row])
        assert tokens[0].tolist() == expected[0][row, :, : int(lengths)].tolist()
        torch.testing.assert_close(quality[0], expected[3][row], atol=1e-4, rtol=1e-4)


def test_what_stands_behind_a_caption_makes_no_difference():
    torch.manual_seed(0)
    states, log_probs = torch.randn(2, 6, WIDTH), -torch.rand(2, 6)
    lengths = torch.tensor([6, 4])
    expected = head()(states, log_probs, lengths)
    states[1, 4:], log_probs[1, 4:] = 1e4, float("-inf")
    torch.testing.assert_close(head()(states, log_probs, lengths), expected)
    alone = head()(states[1:, :4], log_probs[1:, :4], lengths[1:])
    torch.testing.assert_close(alone, expected[1:])
    assert ((expected > 0) & (expected < 1)).all()


def test_logit_is_finite_where_the_probability_is_one_or_nought():
    extreme = logit(torch.tensor([0.0, -1e-9, -0.5, -1e4]))
    assert extreme.isfinite().all()
    assert extreme[2].item() == pytest.approx(torch.logit(torch.tensor(-0.5).exp()).item())


@pytest.fixture
def judged(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The small checkpoint with a quality head."""
    checkpoint = Checkpoint.load(tiny_checkpoint)
    torch.manual_seed(5)
    own = QualityHead(checkpoint.captioner.gpt2.config.n_embd, 8).eval()
    checkpoint.quality = Quality(own, {"captions": 3})
    checkpoint.save(tmp_path / "judged")
    return tmp_path / "judged"


def test_a_checkpoint_keeps_its_head(judged: Path):
    checkpoint = Checkpoint.load(judged)
    assert checkpoint.quality is not None
    assert checkpoint.quality.record == {"captions": 3}
    torch.manual_seed(5)
    expected = QualityHead(checkpoint.captioner.gpt2.config.n_embd, 8).state_dict()
    for name, value in checkpoint.quality.head.state_dict().items():
        assert torch.equal(value, expected[name])


def test_a_head_that_does_not_fit_is_refused(judged: Path, tmp_path: Path):
    checkpoint = Checkpoint.load(judged)
    (judged / RECORD).write_text("{")
    with pytest.raises(Refusal, match=r"quality\.json cannot be read.*training\.quality"):
        Checkpoint.load(judged)
    with torch.no_grad():
        checkpoint.captioner.gpt2.transformer.wpe.weight += 1
    other = dataclasses.replace(checkpoint, quality=None)
    other.save(tmp_path / "other")
    (tmp_path / "other" / HEAD).write_bytes((judged / HEAD).read_bytes())
    with pytest.raises(Refusal, match=r"learned for weights with SHA-256.*training\.quality"):
        Checkpoint.load(tmp_path / "other")
    (judged / HEAD).write_bytes(b"no tensors")
    with pytest.raises(Refusal, match=r"quality\.safetensors is damaged"):
        Checkpoint.load(judged)


def test_a_head_of_another_width_is_refused(tiny_checkpoint: Path, tmp_path: Path):
    checkpoint = Checkpoint.load(tiny_checkpoint)
    width = checkpoint.captioner.gpt2.config.n_embd
    checkpoint.quality = Quality(QualityHead(width + 1, 8), {})
    checkpoint.save(tmp_path / "wide")
    with pytest.raises(Refusal, match=f"does not fit a GPT-2 of width {width}: .*first.weight"):
        Checkpoint.load(tmp_path / "wide")


def test_an_artifact_gives_the_quality_of_every_caption(judged: Path, tmp_path: Path):
    export_torchscript(judged, tmp_path / "artifact")
    exported, eager = Artifact.load(tmp_path / "artifact"), eager_artifact(Checkpoint.load(judged))
    assert exported.info["quality"] == {"captions": 3}
    features = eager.encode(torch.randn(3, 3, 32, 32))
    for options in (
        GenerationOptions(num_beams=3, num_captions=2, max_tokens=8),
        GenerationOptions(num_beams=1, num_captions=3, max_tokens=8, temperature=1.0),
        GenerationOptions(num_beams=1, max_tokens=8, prompt="two red"),
    ):
        expected, captions = eager.caption(features, options), exported.caption(features, options)
        for own, theirs in zip(captions, expected, strict=True):
            assert [each.text for each in own] == [each.text for each in theirs]
            assert all(each.quality is not None for each in own)
            judgements = [each.quality for each in theirs]
            assert [each.quality for each in own] == pytest.approx(judgements, abs=1e-4)


def test_a_captioner_without_a_head_gives_no_quality(tiny_checkpoint: Path):
    artifact = eager_artifact(Checkpoint.load(tiny_checkpoint))
    features = artifact.encode(torch.randn(2, 3, 32, 32))
    assert artifact.info["quality"] is None
    for captions in artifact.caption(features, GenerationOptions(num_beams=3, num_captions=2)):
        assert [each.quality for each in captions] == [None, None]
