"""Which weights of CLIP and GPT-2 are trained: all, none, or low-rank matrices beside them.

`full` and `frozen` are the paper's two variants for GPT-2 (arXiv 2111.09734, section 3.2); the
paper leaves CLIP frozen. `lora` is Hu et al.: "LoRA: Low-Rank Adaptation of Large Language Models",
arXiv 2106.09685, by peft. Its matrices exist during training only: a saved model has them merged
into its weights.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar, cast

from torch import nn

from model.refusal import Refusal
from training.config import Lora

Model = TypeVar("Model", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Layers:
    """The linear layers of a model's blocks that `lora` adds its matrices to.

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


def tunable(model: Model, tuning: str, lora: Lora, layers: Layers) -> Model:
    """Set which parameters of a model require gradients, and add LoRA's matrices.

    Args:
        model: CLIP, its image tower, or GPT-2; changed in place.
        tuning: `full`, `frozen` or `lora`.
        lora: Settings of `lora`.
        layers: Layers that `lora` adds its matrices to.

    Returns:
        The same model; for `lora` peft's wrapper, which has the model's attributes (see `merged`).

    Raises:
        Refusal: The model has no such layers.
    """
    if tuning == "frozen":
        model.requires_grad_(False)
    if tuning != "lora":
        return model
    # Imported here, because it takes seconds and the other tunings do not need it.
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides it by the rank, as a float
        lora_dropout=lora.dropout,
        target_modules=layers.pattern,
        fan_in_fan_out=layers.transposed,
        bias="none",
    )
    try:
        wrapped: Any = get_peft_model(cast(Any, model), config)
    except ValueError as error:
        raise Refusal(
            f"{type(model).__name__} has no layers for lora (names like "
            f"{layers.pattern}); tune all of it (full) or none"
        ) from error
    return wrapped


def merged(model: Model) -> Model:
    """A plain model that computes the same.

    Of a model with LoRA it is a copy with the matrices merged in: merging in place and taking them
    out again would round the weights.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    wrapper: Any = copy.deepcopy(model)
    return cast(Model, wrapper.merge_and_unload())
