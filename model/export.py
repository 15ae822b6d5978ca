"""The TorchScript exporter: a checkpoint in, `captioner.pt` and `captioner.json` out.

The encoder and the mapper are traced; the search, which branches, is scripted around the decoder.
torch 2.13 warns that TorchScript is deprecated: what knows about it is here, in `model.artifact`,
which loads and runs it, and in the packed layers, so that another format can stand beside it.

Axes: B batch, D CLIP width, E GPT-2 width, K prefix length, S image side, P image patches.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from model.artifact import FORMAT, Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.layers.output_layer import NarrowOutputLayer
from model.layers.precision import narrow_output_linear, pack_linears
from model.network.captioner import ClipCap
from model.network.decoder import Decoder
from model.network.encoder import ClipEncoder, ImageEncoder, SiglipEncoder
from model.network.search import Search
from model.network.vision_transformer import VisionTransformer
from model.options import OPTIONS, GenerationOptions
from model.refusal import Refusal
from model.whole_folder import whole_folder

_DEFAULTS = GenerationOptions()
#: Settings of a GPT-2 that the decoder computes, and their values.
_STANDARD: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def build_search(captioner: ClipCap, precision: str = "fp32") -> Search:
    """The search over a copy of the captioner's GPT-2; runs eagerly, or scripted when exported."""
    decoder = build_decoder(captioner.gpt2)
    if precision != "fp32":
        head = narrow_output_linear(decoder.output.head, precision)
        decoder.output = NarrowOutputLayer(head, decoder.wte)  # type: ignore[assignment]
    pack_linears(decoder, precision)
    return Search(decoder, captioner.config.end_token_id).eval()


def build_decoder(gpt2: GPT2LMHeadModel) -> Decoder:
    """A `Decoder` with the weights of a Hugging Face GPT-2 (copied; its layout is transposed).

    Raises:
        Refusal: A variant of GPT-2 that the decoder does not compute.
    """
    config = gpt2.config
    for name, known in _STANDARD.items():
        if getattr(config, name) not in known:
            raise Refusal(
                f"{name} of this GPT-2 is {getattr(config, name)!r}; only a GPT-2 as published "
                f"can be exported, where it is {' or '.join(map(repr, known))}"
            )
    least = 2 * int(OPTIONS["num_beams"].high)
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
        for theirs, ours in names.items():
            weight = source[f"h.{layer}.{theirs}.weight"]
            # Hugging Face stores linear layers of GPT-2 as [in, out].
            weights[f"blocks.{layer}.{ours}.weight"] = weight.t() if weight.ndim == 2 else weight
            weights[f"blocks.{layer}.{ours}.bias"] = source[f"h.{layer}.{theirs}.bias"]
        for part in ("weight", "bias"):
            queries, others = weights[f"blocks.{layer}.c_attn.{part}"].tensor_split([config.n_embd])
            weights[f"blocks.{layer}.c_attn.{part}"] = torch.cat([queries * scale, others])
    weights["output.head.weight"] = weights["wte.weight"]
    decoder.load_state_dict(weights)
    return decoder.eval()


class _Encoder(nn.Module):
    """An image encoder of another library as a function of pixels alone."""

    def __init__(self, encoder: ImageEncoder | None, kind: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind

    def forward(self, pixels: Tensor) -> Tensor:
        assert self.encoder is not None, "this captioner was loaded without its encoder"
        return self.encoder.encode(pixels, self.kind)


def build_vision(encoder: ImageEncoder | None, kind: str, precision: str = "fp32") -> nn.Module:
    """What maps pixels to the encoder's features of a kind; the encoder itself stays as it is."""
    if not isinstance(encoder, ClipEncoder | SiglipEncoder):
        return _Encoder(copy.deepcopy(encoder), kind).eval()
    vision = VisionTransformer(encoder, kind)
    pack_linears(vision.patches, "fp32")  # everything rests on them, and they cost next to nothing
    pack_linears(vision, precision)
    return vision.eval()


class _Captioner(nn.Module):
    """What is in `captioner.pt`."""

    def __init__(self, encoder: nn.Module, mapper: nn.Module, search: Search, norm: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.mapper = mapper
        self.search = search
        self.normalize_feature = norm

    @torch.jit.export
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] to features [B, D] or [B, P, D]."""
        return self.encoder(pixels)

    @torch.jit.export
    def prefix(self, features: Tensor) -> Tensor:
        """Features [B, D] or [B, P, D] to prefixes [B, K, E]."""
        if self.normalize_feature:
            features = F.normalize(features, dim=-1)
        return self.mapper(features)

    @torch.jit.export
    def caption(
        self,
        features: Tensor,
        num_beams: int,
        num_captions: int,
        max_tokens: int,
        min_tokens: int,
        length_penalty: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features to token ids, lengths and log-probabilities; see `Search.forward`."""
        return self.search(
            self.prefix(features),
            num_beams,
            num_captions,
            max_tokens,
            min_tokens,
            length_penalty,
        )

    @torch.jit.export
    def score(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T] of given tokens [B, T], each after those before it, in nats."""
        return self.search.score(self.prefix(features), tokens)

    def forward(
        self,
        pixels: Tensor,
        num_beams: int = _DEFAULTS.num_beams,
        num_captions: int = _DEFAULTS.num_captions,
        max_tokens: int = _DEFAULTS.max_tokens,
        min_tokens: int = _DEFAULTS.min_tokens,
        length_penalty: float = _DEFAULTS.length_penalty,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, 3, S, S] to token ids, lengths and log-probabilities."""
        return self.caption(
            self.encode(pixels), num_beams, num_captions, max_tokens, min_tokens, length_penalty
        )


def eager_artifact(checkpoint: Checkpoint, precision: str = "fp32") -> Artifact:
    """The captioner as it will be exported, run eagerly: for evaluation, and as a reference."""
    module, info = _assemble(checkpoint, precision), _describe(checkpoint, precision)
    return Artifact(module, info, checkpoint.tokenizer)


@torch.inference_mode()
def export_torchscript(
    checkpoint_folder: str | Path,
    out: str | Path,
    evaluation: dict[str, Any] | None = None,
    precision: str = "fp32",
) -> None:
    """Write an artifact folder aside, then put it in place of an older one.

    Memory: about three times the weights at its peak.

    Args:
        checkpoint_folder: A captioner's checkpoint.
        out: Folder for captioner.pt, captioner.json and tokenizer.json.
        evaluation: Figures of this checkpoint's evaluation, kept in captioner.json.
        precision: One of `model.layers.precision.PRECISIONS`.

    Raises:
        Refusal: The checkpoint is not usable, or was published without its encoder.
    """
    checkpoint = Checkpoint.load(checkpoint_folder)
    config = checkpoint.captioner.config
    clip = checkpoint.captioner.clip
    if clip is None:
        raise Refusal(f"{checkpoint_folder} has no CLIP encoder; a server needs one")
    # Whoever calls the file without `no_grad` shall not pay for gradients that nobody can use.
    module = _assemble(checkpoint, precision).requires_grad_(False)
    side = config.preprocessing.size
    features = torch.zeros(2, *clip.shape(config.mapper.feature_kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        module.encoder = torch.jit.trace(module.encoder, torch.zeros(2, 3, side, side))
        module.mapper = torch.jit.trace(module.mapper, features)
        scripted = torch.jit.script(module)
    with whole_folder(out, "captioner.json", "captioner.pt") as partial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted.save(str(partial / "captioner.pt"))
        shutil.copy(Path(checkpoint_folder) / "tokenizer.json", partial)
        with (partial / "captioner.pt").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        info = {
            **_describe(checkpoint, precision),
            "sha256": digest,
            "weights_sha256": weights_sha256(checkpoint_folder),
            "evaluation": evaluation,
            "training_features": checkpoint.training_features,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        (partial / "captioner.json").write_text(json.dumps(info, indent=2) + "\n")


def _assemble(checkpoint: Checkpoint, precision: str) -> _Captioner:
    """Encoder, mapper and search in one module, not yet traced or scripted."""
    captioner, config = checkpoint.captioner, checkpoint.captioner.config
    encoder = build_vision(captioner.clip, config.mapper.feature_kind, precision)
    mapper = copy.deepcopy(captioner.mapper)
    # Once an image, and every step reads what it wrote: next to exact at next to no cost.
    pack_linears(mapper, "fp16" if precision == "fp16" else "fp32")
    search = build_search(captioner, precision)
    return _Captioner(encoder, mapper, search, config.normalize_feature).eval()


def _describe(checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """The part of captioner.json that the checkpoint alone decides."""
    captioner, config = checkpoint.captioner, checkpoint.captioner.config
    room = captioner.gpt2.config.n_positions - config.mapper.prefix_length
    return {
        "format": FORMAT,
        "precision": precision,
        "preprocessing": config.preprocessing.to_dict(),
        "feature_width": config.feature_width,
        "prefix_length": config.mapper.prefix_length,
        "vocabulary": captioner.gpt2.config.vocab_size,
        "end_token_id": config.end_token_id,
        "end_token_is_text": config.end_token_is_text,
        "max_tokens": int(min(room, OPTIONS["max_tokens"].high)),
        "generation": checkpoint.generation.to_dict(),
    }
