"""Who captions pictures in `benchmarks.decode`: the original, Hugging Face, BLIP, and the artifact.

All but BLIP are one captioner of random weights, so that what they write can be compared; every
one goes from pixels to tokens and writes exactly as many tokens as it is asked for. `contestants`
says how to make each of them, for the process that it then has for itself.

Axes: B batch, T tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    GPT2Config,
)

from benchmarks.machine import dtypes
from benchmarks.original import Original
from benchmarks.real_size import random_checkpoint, real_size_checkpoint
from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import export_torchscript
from model.layers.precision import available
from model.network.captioner import ClipCap
from model.options import GenerationOptions

#: What `--only` chooses from.
GROUPS = ("ours", "hf", "original", "blip", "openvino", "int8", "compile")
#: (batch, beams) that are measured of each group.
CASES = {
    "original": ((1, 1), (1, 5)),
    "hf": ((1, 5), (8, 5)),
    "blip": ((1, 5), (4, 5)),
    "ours": ((1, 1), (8, 1), (1, 5), (8, 5)),
}
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
        score: Pixels and captions [B, T] to log-probabilities of the tokens; of ours only.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    caption: Callable[[Tensor, int, int], list[list[int]]]
    side: int
    score: Callable[[Tensor, Tensor], Tensor] | None = None

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


def write_contestants(captioner: Checkpoint, folder: Path, precisions: Sequence[str]) -> None:
    """The captioner in a folder: as a checkpoint, and as the artifact of each precision."""
    captioner.save(folder / "checkpoint")
    for precision in precisions:
        export_torchscript(folder / "checkpoint", folder / precision, None, precision)


@functools.cache
def captioner_of(folder: Path, dtype: torch.dtype = torch.float32) -> ClipCap:
    """The checkpoint in one precision throughout; one object however often it is asked for."""
    return Checkpoint.load(folder / "checkpoint").captioner.to(dtype).eval()


@functools.cache
def artifact_of(folder: Path, precision: str) -> Artifact:
    """The captioner as a server loads it."""
    return Artifact.load(folder / precision)


@functools.cache
def ours(folder: Path, precision: str) -> Contestant:
    """The exported artifact."""
    artifact = artifact_of(folder, precision)

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        forced = GenerationOptions(num_beams=beams, max_tokens=tokens, min_tokens=tokens)
        return artifact.tokens(features, forced)

    def score(pixels: Tensor, captions: Tensor) -> Tensor:
        return artifact.score(artifact.encode(pixels), captions)

    side = artifact.preprocessing.size
    return Contestant(f"ours {precision}", artifact.encode, caption, side, score)


@functools.cache
def hugging_face(folder: Path, dtype: torch.dtype) -> Contestant:
    """`generate(inputs_embeds=prefix)` of the same captioner in one precision throughout."""
    captioner = captioner_of(folder, dtype)
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

    side = captioner.config.preprocessing.size
    return Contestant(f"Hugging Face {short(dtype)}", encode, caption, side)


@functools.cache
def original(folder: Path) -> Contestant:
    """ClipCap's inference as it was published, one picture after the other."""
    captioner = captioner_of(folder)
    weights = {f"gpt.{name}": value for name, value in captioner.gpt2.state_dict().items()}
    weights |= {f"clip_project.{n}": value for n, value in captioner.mapper.state_dict().items()}
    algorithm = Original(weights, captioner.config.normalize_feature, NEVER_ENDS)

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        prefixes = [algorithm.prefix(feature) for feature in features]
        if beams == 1:
            return [algorithm.greedy(prefix, tokens) for prefix in prefixes]
        return [algorithm.beam(prefix, beams, tokens)[0] for prefix in prefixes]

    side = captioner.config.preprocessing.size
    return Contestant("original fp32", captioner.encode, caption, side)


@functools.cache
def blip(quick: bool, dtype: torch.dtype) -> Contestant:
    """BLIP of base size (arXiv 2201.12086) with random weights; it encodes within `generate`."""
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
    model = BlipForConditionalGeneration(config).eval().to(dtype)

    def caption(pixels: Tensor, beams: int, tokens: int) -> list[list[int]]:
        ids = model.generate(
            pixels.to(dtype), num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens
        )
        return ids[:, -tokens:].tolist()

    return Contestant(f"BLIP-base {short(dtype)}", lambda x: x, caption, side)


def short(dtype: torch.dtype) -> str:
    """fp32 or bf16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def contestants(
    folder: Path, groups: Sequence[str], quick: bool
) -> dict[str, dict[str, Callable[[], Contestant]]]:
    """Group -> name -> what makes it, of what `write_contestants` left in the folder."""
    everyone: dict[str, dict[str, Callable[[], Contestant]]] = {
        "original": {"original fp32": partial(original, folder)},
        "hf": {f"Hugging Face {short(d)}": partial(hugging_face, folder, d) for d in dtypes()},
        "blip": {f"BLIP-base {short(d)}": partial(blip, quick, d) for d in dtypes()},
        "ours": {f"ours {name}": partial(ours, folder, name) for name in available()},
    }
    return {group: makers for group, makers in everyone.items() if group in groups}
