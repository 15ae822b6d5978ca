"""What of CLIP and GPT-2 is learned: all of it, nothing, or low-rank matrices beside its weights.

`full` and `frozen` are the two ways of the paper with GPT-2 (arXiv 2111.09734, section 3.2), which
leaves CLIP frozen. `lora` is Hu et al.: "LoRA: Low-Rank Adaptation of Large Language Models",
arXiv 2106.09685, through peft. Its matrices exist during training only: what is saved has them
merged in.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar

from torch import nn

from model.refusal import Refusal
from training.config import Clip, Lora, Train

Model = TypeVar("Model", bound=nn.Module)
TUNINGS = ("full", "frozen", "lora")


@dataclasses.dataclass(frozen=True)
class Layers:
    """The linear layers of a model's blocks, which `lora` goes beside.

    Attributes:
        pattern: Regular expression of their full names.
        transposed: Their weights are stored as [in, out].
    """

    pattern: str
    transposed: bool = False


#: Attention in and out, feed-forward in and out.
GPT2 = Layers(r".*\.(c_attn|c_proj|c_fc)", transposed=True)
#: The same of Hugging Face's CLIP and SigLIP, both towers. SigLIP's pooling head has layers of the
#: same names, but reads the weights past them.
CLIP = Layers(r"(.*\.)?layers\.\d+\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)")


def check_tuning(settings: Train) -> None:
    """Refuse a tuning that does not exist or has nothing to start from."""
    _check("train", TUNINGS, settings.tuning, settings.lora)
    if settings.tuning != "full" and settings.gpt2.base is None:
        raise Refusal(
            f"train.tuning is {settings.tuning} but train.gpt2.base is null: a GPT-2 from scratch "
            "must learn; name a trained one or set train.tuning=full"
        )
    clip = settings.clip
    _check("train.clip", TUNINGS, clip.tuning, clip.lora)
    if clip.tuning == "frozen":
        return
    for name, value, fits, limit in (
        ("learning_rate", clip.learning_rate, clip.learning_rate > 0, "above 0, usually 1e-5"),
        ("workers", clip.workers, clip.workers >= 0, "0 (decode in this process) or more"),
        ("max_pixels", clip.max_pixels, clip.max_pixels >= 1, "at least 1"),
    ):
        _check_limit(f"train.clip.{name}", value, fits, limit)


def check_clip(settings: Clip) -> None:
    """Refuse a tuning that contrastive training does not know or has nothing to start from."""
    _check("clip", ("full", "lora"), settings.tuning, settings.lora)
    if settings.tuning != "full" and settings.base is None:
        raise Refusal(
            f"clip.tuning is {settings.tuning} but clip.base is null: a CLIP from scratch must "
            "learn; name a trained one or set clip.tuning=full"
        )


def _check(block: str, tunings: tuple[str, ...], tuning: str, lora: Lora) -> None:
    if tuning not in tunings:
        known = f"{', '.join(tunings[:-1])} or {tunings[-1]}"
        raise Refusal(f"{block}.tuning is {tuning!r}; it must be {known}")
    if tuning != "lora":
        return
    for name, value, fits, limit in (
        ("rank", lora.rank, lora.rank >= 1, "a whole number from 1, usually 4 to 64"),
        ("alpha", lora.alpha, lora.alpha > 0, "above 0, usually rank or twice that"),
        ("dropout", lora.dropout, 0 <= lora.dropout < 1, "from 0 to below 1"),
    ):
        _check_limit(f"{block}.lora.{name}", value, fits, limit)


def _check_limit(name: str, value: float, fits: bool, limit: str) -> None:
    if not fits:
        raise Refusal(f"{name} is {value}; it must be {limit}")


def prepare(model: Model, tuning: str, lora: Lora, layers: Layers) -> Model:
    """A model as it is trained: only what is learned wants gradients.

    Args:
        model: CLIP, its image tower, or GPT-2.
        tuning: `full`, `frozen` or `lora`.
        lora: What `lora` adds.
        layers: Where it adds it.

    Returns:
        The same model; for `lora` peft's wrapper, which passes for it: see `merged`.

    Raises:
        Refusal: The model has no such layers.
    """
    if tuning == "frozen":
        model.requires_grad_(False)
    if tuning != "lora":
        return model
    # Here, because it takes seconds that other tunings need not wait for.
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=layers.pattern,
        fan_in_fan_out=layers.transposed,
        bias="none",
    )
    try:
        wrapped: Any = get_peft_model(model, config)  # type: ignore[arg-type]
    except ValueError as error:
        raise Refusal(
            f"{type(model).__name__} has no layers that lora could go beside (names like "
            f"{layers.pattern}); tune all of it (full) or none"
        ) from error
    return wrapped


def merged(model: Model) -> Model:
    """A plain model that computes the same; for `lora` a copy, since unmerging would round."""
    if not hasattr(model, "merge_and_unload"):
        return model
    return copy.deepcopy(model).merge_and_unload()
