"""The systems that `benchmarks.decode` compares: ours, Hugging Face, the original, and BLIP.

All but BLIP are one captioner with random weights, so their captions can be compared. Every system
goes from pixels to tokens and writes exactly as many tokens as it is asked for.

`products` is the limit of the machine: only the matrix products of one decode step, of 40 rows (8
images x 5 beams), with weights packed as the library prefers and inputs already rounded (except for
fp16's output layer, whose operator rounds its input).

Axes: B images, T tokens, R rows, S image side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration

from benchmarks.machine import has_bf16_products
from benchmarks.original import Original
from benchmarks.pages import ROWS
from benchmarks.real_size import TOKENS, random_checkpoint
from model.checkpoint import Checkpoint
from model.export import export_torchscript
from model.layers.packing import narrow_output_linear
from model.layers.precision import available
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.programs.load import load_artifact

#: Group of systems -> the (batch, beams) that are measured.
CASES = {
    "original": ((1, 1), (1, 5)),
    "hf": ((1, 5), (8, 5)),
    "blip": ((1, 5), (4, 5)),
    "ours": ((1, 1), (8, 1), (1, 5), (8, 5)),
}
#: No token has this id, so no caption ends before its last token.
NEVER_ENDS = -1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Captioner:
    """A system under measurement.

    Attributes:
        encode: Pixels [B, 3, S, S] to features.
        caption: Features, beams and tokens to token ids, a list of T for each image.
        side: S.
    """

    encode: Callable[[Tensor], Tensor]
    caption: Callable[[Tensor, int, int], list[list[int]]]
    side: int


def write_captioner(folder: Path, precisions: Sequence[str], tiny: bool) -> None:
    """Write the captioner as a checkpoint, and as the artifact of each precision."""
    random_checkpoint(tiny).save(folder / "checkpoint")
    for precision in precisions:
        export_torchscript(folder / "checkpoint", folder / precision, None, precision)


def captioners(
    folder: Path, groups: Sequence[str], tiny: bool
) -> dict[str, dict[str, Callable[[], Captioner]]]:
    """Group -> name -> function that makes the system, from what `write_captioner` left."""
    # bf16 of the others only where the processor multiplies it: see `has_bf16_products`.
    others = ("fp32", "bf16") if has_bf16_products() else ("fp32",)
    every: dict[str, dict[str, Callable[[], Captioner]]] = {
        "original": {"original fp32": partial(original, folder)},
        "hf": {f"Hugging Face {name}": partial(hugging_face, folder, name) for name in others},
        "blip": {f"BLIP-base {name}": partial(blip, name, tiny) for name in others},
        "ours": {f"ours {name}": partial(ours, folder, name) for name in available()},
    }
    return {group: made for group, made in every.items() if group in groups}


@functools.cache
def pixels(batch: int, side: int) -> Tensor:
    """Random pixels [B, 3, S, S]; a larger batch begins with the images of a smaller one."""
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def caption(make: Callable[[], Captioner], batch: int, beams: int) -> list[list[int]]:
    """Token ids for the first `batch` images, by the system that `make` has made before."""
    system = make()
    return system.caption(system.encode(pixels(batch, system.side)), beams, TOKENS)


def encode(make: Callable[[], Captioner], batch: int) -> None:
    """Features of the first `batch` images, which stay in their process."""
    system = make()
    system.encode(pixels(batch, system.side))


@functools.cache
def _eager(folder: Path, dtype: torch.dtype) -> ClipCap:
    """The checkpoint, computed in one dtype throughout."""
    return Checkpoint.load(folder / "checkpoint").captioner.to(dtype).eval()


@functools.cache
def ours(folder: Path, name: str) -> Captioner:
    """The exported artifact in a sub-folder, as a server loads it; of a precision by its name."""
    artifact = load_artifact(folder / name)

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        options = GenerationOptions(num_beams=beams, max_tokens=tokens, min_tokens=tokens)
        return artifact.tokens(features, options)

    return Captioner(artifact.encode, caption, artifact.preprocessing.size)


@functools.cache
def hugging_face(folder: Path, precision: str) -> Captioner:
    """`generate(inputs_embeds=prefix)` of the same captioner."""
    captioner = _eager(folder, DTYPES[precision])
    end = captioner.config.end_token_id

    def encode(pixels: Tensor) -> Tensor:
        return captioner.encode(pixels.to(DTYPES[precision]))

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

    return Captioner(encode, caption, captioner.config.preprocessing.size)


@functools.cache
def original(folder: Path) -> Captioner:
    """ClipCap's inference as it was published, one image after the other."""
    captioner = _eager(folder, torch.float32)
    weights = {f"gpt.{name}": value for name, value in captioner.gpt2.state_dict().items()}
    weights |= {f"clip_project.{n}": value for n, value in captioner.mapper.state_dict().items()}
    algorithm = Original(weights, captioner.config.normalize_feature, NEVER_ENDS)

    def caption(features: Tensor, beams: int, tokens: int) -> list[list[int]]:
        prefixes = [algorithm.prefix(feature) for feature in features]
        if beams == 1:
            return [algorithm.greedy(prefix, tokens) for prefix in prefixes]
        return [algorithm.beam(prefix, beams, tokens)[0] for prefix in prefixes]

    return Captioner(captioner.encode, caption, captioner.config.preprocessing.size)


@functools.cache
def blip(precision: str, tiny: bool) -> Captioner:
    """BLIP of base size (arXiv 2201.12086) with random weights; it encodes inside `generate`."""
    layers, width, side, patch = (1, 32, 32, 8) if tiny else (12, 768, 384, 16)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    sizes["num_attention_heads"] = min(layers * 2, 12)
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={**sizes, "encoder_hidden_size": width},
        vision_config={**sizes, "image_size": side, "patch_size": patch},
    )
    dtype = DTYPES[precision]
    model = BlipForConditionalGeneration(config).eval().to(dtype)

    def caption(pixels: Tensor, beams: int, tokens: int) -> list[list[int]]:
        ids = model.generate(
            pixels.to(dtype), num_beams=beams, min_new_tokens=tokens, max_new_tokens=tokens
        )
        return ids[:, -tokens:].tolist()

    return Captioner(lambda pixels: pixels, caption, side)


@functools.cache
def products(folder: Path, precision: str) -> Callable[[], None]:
    """A function that computes all matrix products of a step and nothing else."""
    config = Checkpoint.load(folder / "checkpoint").captioner.gpt2.config
    # Our output layer is 8-bit in all precisions but fp32.
    head = {"fp32": "fp32", "fp16": "fbgemm int8"}.get(precision, "int8")
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    layer = [(width, 3 * width), (width, width), (width, inner), (inner, width)]
    calls = [_product(*sizes, precision) for sizes in layer * config.n_layer]
    calls.append(_product(width, config.vocab_size, head))

    def step() -> None:
        for call in calls:
            call()

    return step


def _product(inputs: int, outputs: int, precision: str) -> Callable[[], Tensor]:
    """One product of inputs [R, inputs] with weights [outputs, inputs]."""
    weight, x = torch.randn(outputs, inputs), torch.randn(ROWS, inputs)
    if precision == "int8":
        packed = torch.ops.onednn.qlinear_prepack((weight * 30).clamp(-127, 127).char(), None)
        scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
        rounded = (x * 30 + 128).clamp(0, 255).byte()
        more = (None, 1.0, 0, torch.float32, "none", [], "")
        multiply = torch.ops.onednn.qlinear_pointwise
        return lambda: multiply(rounded, 1.0, 128, packed, scales, zeros, *more)
    if precision == "fbgemm int8":
        linear = nn.Linear(inputs, outputs, bias=False)
        packed = narrow_output_linear(linear, "fp16").packed
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return lambda: multiply(x, 1.0 / 63.0, 64, packed)
    if precision == "fp16":
        half = torch.ops.quantized.linear_prepack_fp16(weight, None)
        return lambda: torch.ops.quantized.linear_dynamic_fp16(x, half)
    x = x.to(DTYPES[precision])
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(DTYPES[precision]), ROWS)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
