"""Who captions pictures in `benchmarks.decode`: the original, Hugging Face, BLIP, and the artifact.

All but BLIP are one captioner of random weights, so that what they write can be compared; every
one goes from pixels to tokens and writes exactly as many tokens as it is asked for.

Axes: B batch, T tokens.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    GPT2Config,
)

from benchmarks.original import Original
from benchmarks.real_size import random_checkpoint, real_size_checkpoint
from model.artifact import Artifact
from model.captioner import ClipCap
from model.checkpoint import Checkpoint
from model.linear import PRECISIONS
from model.torchscript import export_torchscript

#: What `--only` chooses from.
GROUPS = ("ours", "hf", "original", "blip", "openvino", "int8")
#: No token: a caption that may end at none.
NEVER_ENDS = -1


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Someone who captions.

    Attributes:
        name: As shown, the precision included.
        encode: Pixels [B, 3, S, S] to features.
        caption: Features, beams and tokens to token ids, a list of T for each picture.
        side: S of its pictures.
        cases: (batch, beams) that are measured.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    caption: Callable[[Tensor, int, int], list[list[int]]]
    side: int
    cases: tuple[tuple[int, int], ...]

    def __call__(self, pixels: Tensor, beams: int, tokens: int) -> list[list[int]]:
        """Pixels to token ids."""
        return self.caption(self.encode(pixels), beams, tokens)


def checkpoint(quick: bool) -> Checkpoint:
    """The captioner of real size, or one that takes no time."""
    if not quick:
        return real_size_checkpoint()
    sizes = {"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPVisionConfig(hidden_size=32, image_size=32, patch_size=8, projection_dim=24, **sizes)
    gpt2 = GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=1, n_positions=128)
    return random_checkpoint(clip, gpt2)


def artifacts(captioner: Checkpoint, folder: Path) -> dict[str, Artifact]:
    """Precision -> the captioner as a server loads it."""
    captioner.save(folder / "checkpoint")
    found = {}
    for precision in PRECISIONS:
        export_torchscript(folder / "checkpoint", folder / precision, None, precision)
        found[precision] = Artifact.load(folder / precision)
    return found


def ours(artifact: Artifact) -> Contestant:
    """The exported artifact."""

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        ids, _, _ = artifact.module.caption(features, beams, 1, tokens, tokens, 1.0)
        return ids[:, 0].tolist()

    name = f"ours {artifact.info['precision']}"
    cases = ((1, 1), (8, 1), (1, 5), (8, 5))
    return Contestant(name, artifact.encode, caption, artifact.preprocessing.size, cases)


def hugging_face(captioner: ClipCap, dtype: torch.dtype) -> Contestant:
    """`generate(inputs_embeds=prefix)` of the same captioner in one precision throughout."""
    if dtype != torch.float32:
        captioner = copy.deepcopy(captioner).to(dtype)
    end = captioner.config.end_token_id

    def encode(pixels: Tensor) -> Tensor:
        return captioner.encode(pixels.to(dtype))

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        prefix = captioner.prefix(features)
        ids = captioner.gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            num_beams=beams,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=end,
            eos_token_id=end,
        )
        return ids.tolist()

    name = f"Hugging Face {short(dtype)}"
    side = captioner.config.preprocessing.size
    return Contestant(name, encode, caption, side, ((1, 5), (8, 5)))


def original(captioner: ClipCap) -> Contestant:
    """ClipCap's own inference, one picture after the other."""
    weights = {f"gpt.{name}": value for name, value in captioner.gpt2.state_dict().items()}
    weights |= {f"clip_project.{n}": value for n, value in captioner.mapper.state_dict().items()}
    algorithm = Original(weights, captioner.config.normalize_feature, NEVER_ENDS)

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        prefixes = [algorithm.prefix(feature) for feature in features]
        if beams == 1:
            return [algorithm.greedy(prefix, tokens) for prefix in prefixes]
        return [algorithm.beam(prefix, beams, tokens)[0] for prefix in prefixes]

    side = captioner.config.preprocessing.size
    return Contestant("original fp32", captioner.encode, caption, side, ((1, 1), (1, 5)))


def blips(quick: bool) -> list[Contestant]:
    """BLIP of base size (arXiv 2201.12086) with random weights, in fp32 and bf16."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072}
    sizes |= {"num_hidden_layers": 12, "num_attention_heads": 12}
    side, patch = 384, 16
    if quick:
        sizes = {"hidden_size": 32, "intermediate_size": 64}
        sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
        side, patch = 32, 8
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={**sizes, "encoder_hidden_size": sizes["hidden_size"]},
        vision_config={**sizes, "image_size": side, "patch_size": patch},
    )
    model = BlipForConditionalGeneration(config).eval()
    return [_blip(model, torch.float32), _blip(copy.deepcopy(model), torch.bfloat16)]


def _blip(model: BlipForConditionalGeneration, dtype: torch.dtype) -> Contestant:
    """One of them; its encoder runs within `generate`."""
    model = model.to(dtype)

    def caption(pixels: Tensor, beams: int, tokens: int) -> list[list[int]]:
        ids = model.generate(
            pixels.to(dtype), num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens
        )
        return ids[:, -tokens:].tolist()

    side = model.config.vision_config.image_size
    return Contestant(f"BLIP-base {short(dtype)}", lambda x: x, caption, side, ((1, 5), (4, 5)))


def short(dtype: torch.dtype) -> str:
    """fp32 or bf16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def contestants(
    captioner: ClipCap, exported: dict[str, Artifact], groups: tuple[str, ...], quick: bool
) -> list[Contestant]:
    """Everyone of the groups who captions pictures."""
    found: list[Contestant] = []
    if "original" in groups:
        found.append(original(captioner))
    if "hf" in groups:
        found += [hugging_face(captioner, dtype) for dtype in (torch.float32, torch.bfloat16)]
    if "blip" in groups:
        found += blips(quick)
    if "ours" in groups:
        found += [ours(artifact) for artifact in exported.values()]
    return found
