"""What of GPT-2 is learned: nothing of a frozen one, LoRA matrices alone, merged when saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from transformers import GPT2LMHeadModel

from model.checkpoint import Checkpoint
from model.network.captioner import ClipCap
from model.refusal import Refusal
from tests.interruption import power_cut
from tests.models import save_gpt2, small_config
from training.captioner.data import CaptionBatch
from training.captioner.module import CaptionerModule
from training.captioner.train import train
from training.captioner.tuning import GPT2, merged, tunable
from training.config import Config, Lora, Train

Variant = Callable[..., Config]
BATCH = (torch.randn(2, 12), torch.tensor([[5, 6, 0], [7, 0, -100]]))


@pytest.fixture
def variant(tiny_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Variant:
    """The settings of the small run on a GPT-2 from a folder, with changes; scores are made up."""
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: 0.5)
    base = str(save_gpt2(tmp_path / "gpt2"))

    def change(name: str = "run", **changes: Any) -> Config:
        settings = dataclasses.replace(
            tiny_run.train,
            out=str(tmp_path / name / "checkpoint"),
            work=str(tmp_path / name / "work"),
            curves=str(tmp_path / name / "curves"),
            gpt2=dataclasses.replace(tiny_run.train.gpt2, base=base),
            **changes,
        )
        return dataclasses.replace(tiny_run, train=settings)

    return change


@pytest.fixture
def lora(tiny_run: Config) -> Train:
    return dataclasses.replace(tiny_run.train, tuning="lora", lora=Lora(2, 6, 0.0))


def moved(model: torch.nn.Module) -> None:
    """Fill LoRA's second matrices, which begin at zero, as if they had learned."""
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)


def test_only_lora_and_the_mapper_learn(lora: Train):
    captioner = ClipCap(small_config())
    module = CaptionerModule(captioner, lora, list, lambda _: 0.0)
    module.trainer = pl.Trainer(
        accelerator="cpu", max_steps=10, logger=False, enable_checkpointing=False
    )
    moved(captioner)
    before = {name: value.clone() for name, value in captioner.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    captioner(*BATCH).backward()
    optimizer.step()
    changed = {n for n, p in captioner.named_parameters() if not torch.equal(p, before[n])}
    expected = {n for n in before if n.startswith("mapper.") or ".lora_" in n}
    assert changed == expected
    assert {n for n, p in captioner.named_parameters() if p.grad is not None} == expected
    # Two layers of four linear layers with two matrices each.
    assert sum(".lora_" in name for name in expected) == 2 * 4 * 2
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(expected)


@torch.inference_mode()
def test_merged_it_is_a_plain_gpt2_that_computes_the_same(lora: Train):
    plain = ClipCap(small_config()).gpt2.eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    untuned, names = plain(tokens).logits, plain.state_dict().keys()
    tuned = tunable(plain, lora.tuning, lora.lora, GPT2).eval()
    torch.testing.assert_close(tuned(tokens).logits, untuned)  # nothing is learned yet
    moved(tuned)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    expected = tuned(tokens).logits
    assert (expected - untuned).abs().max() > 0.01
    one = merged(tuned)
    assert type(one) is GPT2LMHeadModel
    assert one.state_dict().keys() == names
    assert one.lm_head.weight is one.transformer.wte.weight
    assert (one(tokens).logits - expected).abs().max() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())
    assert merged(one) is one


def test_a_checkpoint_of_lora_is_like_any_other(variant: Variant):
    config = variant(tuning="lora", lora=Lora(2, 4, 0.1), epochs=1)
    train(config)
    after = Checkpoint.load(config.train.out).captioner.gpt2.state_dict()
    before = GPT2LMHeadModel.from_pretrained(config.train.gpt2.base).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        change = after[name] - value
        tuned = name.endswith("weight") and any(k in name for k in ("c_attn", "c_proj", "c_fc"))
        assert bool(change.any()) == tuned, name
        if tuned:
            assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


@pytest.mark.parametrize(("scores", "best"), [([0.9, 0.1], 0), ([0.1, 0.9], 1)])
def test_the_best_epoch_of_lora_is_kept(
    variant: Variant, scores: list[float], best: int, monkeypatch: pytest.MonkeyPatch
):
    left = iter(scores)
    monkeypatch.setattr("training.captioner.train.cider", lambda *_: next(left))
    config = variant(tuning="lora")
    train(config)
    kept = torch.load(Path(config.train.work) / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    final = Checkpoint.load(config.train.out).captioner
    matrix = "h.0.attn.c_attn"
    layer = f"captioner.gpt2.base_model.model.transformer.{matrix}"
    state = kept["state_dict"]
    low, high = (state[f"{layer}.lora_{which}.default.weight"] for which in "AB")
    expected = state[f"{layer}.base_layer.weight"] + (high @ low).t() * 16 / 8
    torch.testing.assert_close(final.gpt2.transformer.h[0].attn.c_attn.weight, expected)


def test_lora_resumed_ends_where_an_uninterrupted_run_does(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    whole, cut = variant("whole", tuning="lora"), variant("cut", tuning="lora")
    train(whole)
    with power_cut(monkeypatch, at=7):  # 5 steps an epoch
        train(cut)
    train(variant("cut", tuning="lora", resume=True))
    expected, found = (Checkpoint.load(c.train.out).captioner.state_dict() for c in (whole, cut))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_frozen_gpt2_is_a_fixed_function_in_every_step(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    end = CaptionerModule.on_train_batch_start

    def watching(module: CaptionerModule, batch: CaptionBatch, index: int) -> None:
        gpt2 = module.captioner.gpt2
        assert gpt2.config.resid_pdrop > 0  # there is dropout to be off
        drops = [m.training for m in gpt2.modules() if isinstance(m, torch.nn.Dropout)]
        grads = [p.requires_grad or p.grad is not None for p in gpt2.parameters()]
        seen.append((any(drops), any(grads), module.captioner.mapper.training))
        end(module, batch, index)

    monkeypatch.setattr(CaptionerModule, "on_train_batch_start", watching)
    train(variant(tuning="frozen"))
    assert seen == [(False, False, True)] * 10  # the second epoch, after a validation, included


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuning": "none"}, "train.tuning is 'none'; it must be full, frozen or lora"),
        ({"tuning": "lora", "lora": Lora(0, 16, 0)}, "train.lora.rank is 0; it must be at least 1"),
        ({"tuning": "lora", "lora": Lora(8, 0, 0)}, "train.lora.alpha is 0; it must be above 0"),
        (
            {"tuning": "lora", "lora": Lora(8, 16, 1)},
            "train.lora.dropout is 1; it must be at least 0 and less than 1",
        ),
    ],
)
def test_tunings_that_cannot_be_are_refused(variant: Variant, changes: dict[str, Any], words: str):
    with pytest.raises(Refusal, match=words):
        train(variant(**changes))


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_a_random_gpt2_must_learn_itself(tiny_run: Config, tuning: str):
    settings = dataclasses.replace(tiny_run.train, tuning=tuning)
    with pytest.raises(Refusal, match=f"{tuning} but train.gpt2.base is null: .* must learn"):
        train(dataclasses.replace(tiny_run, train=settings))
