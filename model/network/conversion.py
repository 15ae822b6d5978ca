"""From the trained network to the modules that serving runs, with the same weights.

Axes: B batch, D CLIP width, P image patches, S image side.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from model.layers.output_layer import NarrowOutputLayer
from model.layers.packing import narrow_output_linear, pack_linears
from model.network.captioner import ClipCap
from model.network.decoder import Decoder
from model.network.drafts import Drafts
from model.network.encoder import ClipEncoder, ImageEncoder, SiglipEncoder
from model.network.quality import QualityHead
from model.network.search import Search
from model.network.spelling import Spelling
from model.network.vision_transformer import VisionTransformer
from model.options import OPTIONS
from model.refusal import Refusal

#: Settings of a GPT-2 that change what it computes, and the values that `Decoder` implements.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def build_search(
    captioner: ClipCap,
    precision: str = "fp32",
    spelling: Spelling | None = None,
    drafts: Drafts | None = None,
    quality: QualityHead | None = None,
) -> Search:
    """The search over a copy of the captioner's GPT-2; it runs eagerly, or scripted when exported.

    Args:
        captioner: Has the weights; it stays as it is.
        precision: One of `model.layers.precision.PRECISIONS`.
        spelling: What tokens add to a text, for captions of a limited number of characters.
        drafts: Guesses of tokens, for a faster greedy search of one image.
        quality: The head that judges the captions; a copy runs, in float32. None for none.

    Raises:
        Refusal: A variant of GPT-2 that the decoder does not compute, or a precision that this
            processor does not support.
    """
    decoder = build_decoder(captioner.gpt2)
    if precision != "fp32":
        head = narrow_output_linear(decoder.output.head, precision)
        decoder.output = NarrowOutputLayer(head, decoder.wte)  # type: ignore[assignment]
    pack_linears(decoder, precision)
    judge = copy.deepcopy(quality)
    return Search(decoder, captioner.config.end_token_id, spelling, drafts, judge).eval()


def build_decoder(gpt2: GPT2LMHeadModel) -> Decoder:
    """A `Decoder` with a copy of the weights of a Hugging Face GPT-2.

    Raises:
        Refusal: A variant of GPT-2 that the decoder does not compute, or a vocabulary that is too
            small for the widest beam search.
    """
    config = gpt2.config
    for name, supported in _SUPPORTED.items():
        if getattr(config, name) not in supported:
            raise Refusal(
                f"{name} of this GPT-2 is {getattr(config, name)!r}; only a GPT-2 as published "
                f"can be exported, where it is {' or '.join(map(repr, supported))}"
            )
    least = 2 * int(OPTIONS["num_beams"].high)  # candidates of a step, see `Search.beam`
    if config.vocab_size < least:
        raise Refusal(
            f"the vocabulary is {config.vocab_size} tokens; beam search needs at least {least}: "
            "train with a larger train.gpt2.vocabulary"
        )
    decoder = Decoder(
        vocabulary=config.vocab_size,
        positions=config.n_positions,
        width=config.n_embd,
        layers=config.n_layer,
        heads=config.n_head,
        inner=config.n_inner or 4 * config.n_embd,
        epsilon=config.layer_norm_epsilon,
    )
    source = gpt2.transformer.state_dict()
    scale = (config.n_embd // config.n_head) ** -0.5
    names = {
        "ln_1": "ln_1",
        "attn.c_attn": "c_attn",
        "attn.c_proj": "attn_proj",
        "ln_2": "ln_2",
        "mlp.c_fc": "c_fc",
        "mlp.c_proj": "mlp_proj",
    }
    weights = {k: v for k, v in source.items() if not k.startswith("h.")}
    for layer in range(config.n_layer):
        for source_name, name in names.items():
            weight = source[f"h.{layer}.{source_name}.weight"]
            # Hugging Face stores linear layers of GPT-2 as [in, out].
            weights[f"blocks.{layer}.{name}.weight"] = weight.t() if weight.ndim == 2 else weight
            weights[f"blocks.{layer}.{name}.bias"] = source[f"h.{layer}.{source_name}.bias"]
        for part in ("weight", "bias"):
            packed = f"blocks.{layer}.c_attn.{part}"
            queries, keys_values = weights[packed].tensor_split([config.n_embd])
            weights[packed] = torch.cat([queries * scale, keys_values])
    weights["output.head.weight"] = weights["wte.weight"]
    decoder.load_state_dict(weights)
    return decoder.eval()


class PixelEncoder(nn.Module):
    """An image encoder whose `forward` takes pixels only, as tracing needs it.

    Args:
        encoder: The encoder; None for a captioner that was loaded without one.
        kind: `pooled` or `patches`, as in `ImageEncoder.encode`.
    """

    def __init__(self, encoder: ImageEncoder | None, kind: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels [B, 3, S, S] to features [B, D] or [B, P, D]."""
        assert self.encoder is not None, "this captioner was loaded without its encoder"
        return self.encoder.encode(pixels, self.kind)


def build_vision(encoder: ImageEncoder | None, kind: str, precision: str = "fp32") -> nn.Module:
    """The module that maps pixels to features in serving.

    Args:
        encoder: Has the weights; it stays as it is. None for a captioner without an encoder.
        kind: `pooled` or `patches`, as in `ImageEncoder.encode`.
        precision: One of `model.layers.precision.PRECISIONS`.

    Raises:
        Refusal: Its activation is not known, or this processor does not support the precision.
    """
    vision = plain_vision(encoder, kind)
    if isinstance(vision, VisionTransformer):
        # An error here would be in all that follows, and the layer takes little of the time.
        pack_linears(vision.patches, "fp32")
        pack_linears(vision, precision)
    return vision


def plain_vision(encoder: ImageEncoder | None, kind: str) -> nn.Module:
    """As `build_vision`, in float32 and without layers that are packed for a processor."""
    if not isinstance(encoder, ClipEncoder | SiglipEncoder):
        return PixelEncoder(copy.deepcopy(encoder), kind).eval()
    return VisionTransformer(encoder, kind).eval()
