"""Self-critical training: what is drawn, what is learned from it, and where it starts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from model.network.captioner import IGNORED, ClipCap
from model.refusal import Refusal
from tests.models import small_config
from training.captioner.objectives.self_critical import SelfCriticalModule, sampled_captions
from training.captioner.settings import check_train
from training.captioner.train import train
from training.config import Config


@pytest.fixture
def captioner() -> ClipCap:
    torch.manual_seed(0)
    return ClipCap(dataclasses.replace(small_config(), clip=None)).eval()


def test_captions_are_drawn_by_their_probability(captioner: ClipCap):
    features = torch.randn(2, captioner.config.feature_width)
    torch.manual_seed(1)
    with torch.no_grad():
        captioner.gpt2.transformer.wte.weight.mul_(3)  # some tokens are likelier than others
        labels = sampled_captions(captioner, features, 4000, 2).view(2, 4000, -1)
        prefix = captioner.prefix(features)
        logits = captioner.gpt2(inputs_embeds=prefix).logits[:, -1].softmax(-1)
    for drawn, expected in zip(labels[:, :, 0], logits, strict=True):
        shares = drawn.bincount(minlength=len(expected)) / len(drawn)
        assert (shares - expected).abs().max() < 0.04


def test_the_second_token_follows_from_the_first(captioner: ClipCap):
    """With a temperature near zero a draw is the likeliest caption, so the cache is read right."""
    with torch.no_grad():
        captioner.gpt2.transformer.ln_f.weight.mul_(1e5)
        captioner.gpt2.transformer.ln_f.bias.zero_()
    features = torch.randn(3, captioner.config.feature_width)
    end = captioner.config.end_token_id
    labels = sampled_captions(captioner, features, 2, 6)
    expected = captioner.gpt2.generate(
        inputs_embeds=captioner.prefix(features),
        attention_mask=torch.ones(3, captioner.config.mapper.prefix_length),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
    )
    for number, row in enumerate(labels):
        found = row[row != IGNORED].tolist()
        assert found == expected[number // 2].tolist()[: len(found)]
        assert len(found) == 6 or found[-1] == end


def test_the_loss_is_that_of_a_plain_loop(captioner: ClipCap, tiny_run: Config):
    references = [["a red boat"], ["two dogs on the sea"], ["a cat", "the cat"]]
    texts = ["a red boat", "a boat", "two dogs", "on the sea", "the cat", "a dog"]

    def decode(captions: Sequence[Sequence[int]]) -> list[str]:
        return texts[: len(captions)]

    settings = dataclasses.replace(tiny_run.train, samples=2, max_tokens=5, tuning="full")
    module = SelfCriticalModule(captioner, settings, list, lambda _: 0.0, references, decode).eval()
    module.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    module._over_devices = lambda loss, _: (loss, loss)  # one device
    features = torch.randn(3, captioner.config.feature_width)
    torch.manual_seed(5)
    loss = module.training_step((features, torch.arange(3)), 0)
    torch.manual_seed(5)
    labels = sampled_captions(captioner, features, 2, 5)
    total, tokens = torch.zeros(()), 0
    for row, own in enumerate(labels):
        image, ids = row // 2, own[own != IGNORED]
        scores = module.reward(
            [
                (texts[n], bool((labels[n] == captioner.config.end_token_id).any()))
                for n in range(6)
            ],
            [references[n // 2] for n in range(6)],
        )
        other = row ^ 1
        logits = captioner.token_logits(features[image : image + 1], ids[None]).log_softmax(-1)
        chosen = logits[torch.arange(len(ids)), ids].sum()
        total = total - float(scores[row] - scores[other]) * chosen
        tokens += len(ids)
    assert loss.item() == pytest.approx((total / tokens).item(), rel=1e-4)
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in captioner.mapper.parameters())


def test_a_captioner_goes_on_from_a_checkpoint_and_scores_higher(tiny_run: Config, tmp_path: Path):
    settings = dataclasses.replace(
        tiny_run.train,
        init=tiny_run.train.out,
        objective="self_critical",
        samples=4,
        epochs=2,
        learning_rate=1e-3,
        out=str(tmp_path / "checkpoint"),
        work=str(tmp_path / "work"),
        curves=str(tmp_path / "curves"),
    )
    train(dataclasses.replace(tiny_run, train=settings))
    before, after = Checkpoint.load(tiny_run.train.out), Checkpoint.load(settings.out)
    assert after.tokenizer.to_str() == before.tokenizer.to_str()
    assert after.captioner.config == before.captioner.config
    assert after.training is not None
    assert after.training["objective"] == "self_critical"
    assert after.training["started_from"] == tiny_run.train.out
    changed = (
        after.captioner.gpt2.transformer.wte.weight - before.captioner.gpt2.transformer.wte.weight
    ).abs()
    assert 0 < changed.max() < 0.1  # it went on, and did not begin anew


def test_it_is_refused_without_a_captioner_to_go_on_from(tiny_run: Config):
    with pytest.raises(Refusal, match="self_critical but train.init is null"):
        check_train(dataclasses.replace(tiny_run.train, objective="self_critical"))


def test_a_captioner_of_other_features_is_refused(tiny_run: Config, tmp_path: Path):
    start = Checkpoint.load(tiny_run.train.out)
    config = dataclasses.replace(start.captioner.config, clip=None, feature_width=99)
    other = ClipCap(config)
    dataclasses.replace(start, captioner=other, training=None).save(tmp_path / "other")
    settings = dataclasses.replace(tiny_run.train, init=str(tmp_path / "other"))
    with pytest.raises(Refusal, match=r"features 99 wide, .* are \d+ wide"):
        train(dataclasses.replace(tiny_run, train=settings))
