"""What of GPT-2 is learned: all of it, nothing, or low-rank matrices beside its weights.

`full` and `frozen` are the two ways of the paper (arXiv 2111.09734, section 3.2). `lora` is Hu et
al.: "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, through peft. Its
matrices exist during training only: what is validated and saved has them merged in.
"""

from __future__ import annotations

import copy

from transformers import GPT2LMHeadModel

from model.refusal import Refusal
from training.config import Train

#: The linear layers of GPT-2's blocks: attention in and out, feed-forward in and out.
LAYERS = ["c_attn", "c_proj", "c_fc"]


def check_tuning(settings: Train) -> None:
    """Refuse a tuning that does not exist or has nothing to start from."""
    tuning, lora = settings.tuning, settings.lora
    if tuning not in ("full", "frozen", "lora"):
        raise Refusal(f"train.tuning is {tuning!r}; it must be full, frozen or lora")
    if tuning != "full" and settings.gpt2.base is None:
        raise Refusal(
            f"train.tuning is {tuning} but train.gpt2.base is null: a GPT-2 from scratch must "
            "learn; name a trained one or set train.tuning=full"
        )
    if tuning != "lora":
        return
    for name, value, fits, limit in (
        ("rank", lora.rank, lora.rank >= 1, "a whole number from 1, usually 4 to 64"),
        ("alpha", lora.alpha, lora.alpha > 0, "above 0, usually rank or twice that"),
        ("dropout", lora.dropout, 0 <= lora.dropout < 1, "from 0 to below 1"),
    ):
        if not fits:
            raise Refusal(f"train.lora.{name} is {value}; it must be {limit}")


def prepare(gpt2: GPT2LMHeadModel, settings: Train) -> GPT2LMHeadModel:
    """GPT-2 as it is trained: only what is learned wants gradients.

    Returns:
        The same model; for `lora` peft's wrapper, which passes for it: see `merged`.
    """
    if settings.tuning == "frozen":
        gpt2.requires_grad_(False)
    if settings.tuning != "lora":
        return gpt2
    # Here, because it takes seconds that other tunings need not wait for.
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=LAYERS,
        fan_in_fan_out=True,  # GPT-2 stores its linear layers as [in, out]
        bias="none",
    )
    return get_peft_model(gpt2, lora)


def merged(gpt2: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """A plain GPT-2 that computes the same; for `lora` a copy, since unmerging would round."""
    if isinstance(gpt2, GPT2LMHeadModel):
        return gpt2
    return copy.deepcopy(gpt2).merge_and_unload()
