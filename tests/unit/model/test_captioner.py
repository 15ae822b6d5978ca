"""The caption loss against Hugging Face's, with labels made the slow and obvious way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.checkpoint import Checkpoint
from model.config import CaptionerConfig
from model.network.captioner import IGNORED, ClipCap
from tests.models import small_config

CAPTIONS = ([5, 6, 7, 0], [9, 0], [11, 4, 4, 4, 8, 0])


@pytest.fixture(scope="module")
def captioner() -> ClipCap:
    torch.manual_seed(3)
    return ClipCap(small_config()).eval()


def labels_of(captions: tuple[list[int], ...], length: int) -> Tensor:
    return torch.tensor([ids + [IGNORED] * (length - len(ids)) for ids in captions])


def features_of(captioner: ClipCap) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(len(CAPTIONS), captioner.config.feature_width, generator=generator)


def test_the_loss_is_hugging_face_s(captioner: ClipCap):
    features, length = features_of(captioner), 6
    prefix = captioner.prefix(features)
    ids = torch.tensor([line + [1] * (length - len(line)) for line in CAPTIONS])  # 1: any pad
    mask = torch.tensor([[1] * (4 + len(c)) + [0] * (length - len(c)) for c in CAPTIONS])
    ignored = torch.full((len(CAPTIONS), 4), IGNORED)
    expected = captioner.gpt2(
        inputs_embeds=torch.cat([prefix, captioner.gpt2.transformer.wte(ids)], dim=1),
        attention_mask=mask,
        labels=torch.cat([ignored, labels_of(CAPTIONS, length)], dim=1),
    ).loss
    ours = captioner(features, labels_of(CAPTIONS, length))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_it_is_the_mean_over_tokens_of_each_caption_alone(captioner: ClipCap):
    features = features_of(captioner)
    alone = [
        captioner(features[row : row + 1], torch.tensor([ids])) * len(ids)
        for row, ids in enumerate(CAPTIONS)
    ]
    expected = torch.stack(alone).sum() / sum(len(ids) for ids in CAPTIONS)
    torch.testing.assert_close(captioner(features, labels_of(CAPTIONS, 6)), expected)


def test_blanked_words_are_not_read(captioner: ClipCap):
    """With every word blanked, the loss knows a word's place but not the words before it."""
    features, length = features_of(captioner), 6
    labels = labels_of(CAPTIONS, length)
    blank = torch.zeros(len(CAPTIONS), length, captioner.gpt2.config.n_embd)
    logits = captioner.gpt2(
        inputs_embeds=torch.cat([captioner.prefix(features), blank], dim=1)
    ).logits[:, 3 : 3 + length]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    )
    blind = captioner(features, labels, word_dropout=1.0)
    torch.testing.assert_close(blind, expected, atol=1e-5, rtol=1e-5)
    assert captioner(features, labels, word_dropout=0.5) not in (blind, captioner(features, labels))


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_label_smoothing_is_torch_s_and_does_not_read_the_prior(
    captioner: ClipCap, smoothing: float
):
    features, labels = features_of(captioner), labels_of(CAPTIONS, 6)
    seen: list[Tensor] = []

    def prior(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits)
        return logits

    smoothed = captioner(features, labels, prior=prior, label_smoothing=smoothing)
    expected = torch.nn.functional.cross_entropy(
        seen[0], labels[labels != IGNORED], label_smoothing=smoothing
    )
    torch.testing.assert_close(smoothed, expected)
    plain = captioner(features, labels)
    assert not torch.allclose(smoothed, plain)

    def never(logits: Tensor, labels: Tensor) -> Tensor:
        """A prior by which one word never comes."""
        return logits - 1000 * torch.nn.functional.one_hot(torch.tensor(39), logits.shape[1])

    changed = captioner(features, labels, prior=never, label_smoothing=smoothing)
    unlikely = (1 - smoothing) * (captioner(features, labels, prior=never) - plain)
    torch.testing.assert_close(changed, smoothed + unlikely)


def test_an_ignored_word_is_neither_read_nor_learned(captioner: ClipCap):
    features = features_of(captioner)[:1]
    labels = torch.tensor([[5, IGNORED, 7, 0]])
    words = captioner.gpt2.transformer.wte(torch.tensor([[5, 0, 7]])).clone()
    words[:, 1] = 0
    inputs = torch.cat([captioner.prefix(features), words], dim=1)
    logits = captioner.gpt2(inputs_embeds=inputs).logits[0, 3:]
    expected = torch.nn.functional.cross_entropy(logits[[0, 2, 3]], torch.tensor([5, 7, 0]))
    torch.testing.assert_close(captioner(features, labels), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error")  # a user would see them at every start of a training
@pytest.mark.parametrize("tokens", [4, 1])
def test_a_prefix_read_once_for_several_captions_is_the_same(captioner: ClipCap, tokens: int):
    features = features_of(captioner)[:2]
    owners = torch.tensor([1, 0, 1])
    labels = torch.tensor([[5, 6, 0, IGNORED], [7, IGNORED, 8, 0], [9, 0, IGNORED, IGNORED]])
    labels = labels[:, :tokens]
    gradients = []
    for loss in (
        captioner(features[owners], labels),
        captioner(features, labels, owners=owners),
    ):
        captioner.zero_grad()
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in captioner.parameters())])
    for one_each, once in zip(*gradients, strict=True):
        if one_each is None:
            assert once is None
        else:
            torch.testing.assert_close(once, one_each, atol=1e-5, rtol=1e-4)


def test_a_prior_gets_the_logits_of_the_labels_and_its_answer_is_the_loss(captioner: ClipCap):
    labels = torch.tensor([[5, 6, 0], [7, 0, IGNORED]])
    seen: list[torch.Tensor] = []

    def prior(logits: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        seen.extend((logits, given))
        return torch.zeros_like(logits)

    loss = captioner(features_of(captioner)[:2], labels, prior=prior)
    assert seen[0].shape[0] == 5
    assert seen[1] is labels
    torch.testing.assert_close(loss, torch.tensor(float(seen[0].shape[1])).log())


def test_pads_change_neither_loss_nor_gradients(captioner: ClipCap):
    features, results = features_of(captioner), []
    for length in (6, 11):
        captioner.zero_grad()
        loss = captioner(features, labels_of(CAPTIONS, length))
        loss.backward()
        grads = {n: p.grad.clone() for n, p in captioner.named_parameters() if p.grad is not None}
        results.append((loss.detach(), grads))
    (loss, grads), (padded_loss, padded_grads) = results
    torch.testing.assert_close(loss, padded_loss)
    assert grads.keys() == padded_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, padded_grads[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_end_token_is_learned(captioner: ClipCap):
    captioner.zero_grad()
    captioner(features_of(captioner)[:1], torch.tensor([[0]])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in captioner.mapper.parameters())


@pytest.mark.parametrize("normalize", [True, False])
def test_normalised_features_lose_their_length(normalize: bool):
    captioner = ClipCap(small_config(normalize_feature=normalize)).eval()
    features = torch.randn(2, captioner.config.feature_width)
    same = torch.allclose(captioner.prefix(features), captioner.prefix(3 * features), atol=1e-5)
    assert same == normalize


def test_the_encoder_gives_the_projected_feature(tiny_checkpoint):
    captioner = Checkpoint.load(tiny_checkpoint).captioner
    assert captioner.clip is not None
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled = captioner.clip.vision_model(pixel_values=pixels).pooler_output
        expected = pooled @ captioner.clip.visual_projection.weight.T
        torch.testing.assert_close(captioner.encode(pixels), expected)


def test_a_captioner_without_encoder_says_so():
    captioner = ClipCap(small_config())
    with pytest.raises(AssertionError, match="without its encoder"):
        captioner.encode(torch.zeros(1, 3, 32, 32))


def test_a_config_survives_its_file(tmp_path):
    config = small_config()
    config.save(tmp_path / "config.json")
    assert CaptionerConfig.load(tmp_path / "config.json") == config
