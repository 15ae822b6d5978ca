"""One decode step alone, for `benchmarks.decode`: ours, Hugging Face, torch's int8, and others.

40 rows (8 pictures of 5 beams) that have read 20 positions read one token more: attention,
log-softmax and the choice of the 10 likeliest tokens included. Reordering caches, which ours does
not need, is not counted against the others. And the bound of it: the same matrix products alone,
weights packed as the library likes them best and the inputs already rounded (but for fp16's output
layer, whose operator rounds them itself).

Axes: R rows, H heads, W width of a head, P positions, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel
from transformers.cache_utils import DynamicCache

from benchmarks.contestants import artifact_of, captioner_of, short
from benchmarks.converted_step import (
    BEAMS,
    CHOICES,
    IMAGES,
    POSITIONS,
    ROWS,
    Step,
    converted,
)
from benchmarks.machine import dtypes
from model.artifact import unoptimised
from model.checkpoint import Checkpoint
from model.layers.packing import narrow_output_linear
from model.layers.precision import available
from model.network.decoder import Cache


@functools.cache
def our_step(folder: Path, precision: str) -> Step:
    """A step of the exported decoder, with the slots of 5 beams that it then has."""
    artifact = artifact_of(folder, precision)
    torch.jit.script(Cache)  # a class that Python can hold once it has compiled it
    decoder = artifact.module.search.decoder
    length, width = artifact.info["prefix_length"], decoder.wpe.weight.shape[1]
    steps = POSITIONS - length
    _, cache = decoder.prefill(torch.randn(IMAGES, length, width), length + BEAMS * (steps + 1))
    used = length + BEAMS * steps
    for part in (*cache.keys, *cache.values):
        part.normal_()
    own = torch.full((BEAMS, BEAMS), float("-inf")).fill_diagonal_(0.0)
    mask = torch.cat([torch.zeros(BEAMS, length), own.repeat(1, steps + 1)], 1)
    mask = mask.expand(IMAGES, -1, -1).contiguous()
    tokens = torch.randint(artifact.info["vocabulary"], (IMAGES, BEAMS))

    @torch.inference_mode()
    @unoptimised
    def step() -> Any:
        cache.used = used
        return decoder.output(decoder.step(tokens, POSITIONS, cache, mask), CHOICES, -1)

    return step


@functools.cache
def hugging_face_step(folder: Path, dtype: torch.dtype, quantised: bool = False) -> Step:
    """A step of Hugging Face's GPT-2 behind its own cache; with its layers as torch's int8."""
    gpt2 = captioner_of(folder, dtype).gpt2
    if quantised:
        gpt2 = torch_int8(gpt2)
    config = gpt2.config
    width = config.n_embd // config.n_head
    cache = DynamicCache()
    for layer in range(config.n_layer):
        past = torch.randn(2, ROWS, config.n_head, POSITIONS, width, dtype=dtype)
        cache.update(past[0], past[1], layer)
    tokens = torch.randint(config.vocab_size, (ROWS, 1))

    def step() -> Any:
        logits = gpt2(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1]
        cache.crop(-1)
        return logits.float().log_softmax(-1).topk(CHOICES)

    return step


def torch_int8(gpt2: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Hugging Face's GPT-2, changed so that torch quantises every linear layer dynamically."""
    for block in gpt2.transformer.h:
        for module in (block.attn, block.mlp):
            for name in ("c_attn", "c_proj", "c_fc"):
                if old := getattr(module, name, None):
                    new = nn.Linear(*old.weight.shape)  # theirs is [in, out], and not quantised
                    new.weight.data, new.bias.data = old.weight.data.t().contiguous(), old.bias.data
                    setattr(module, name, new)
    return torch.ao.quantization.quantize_dynamic(gpt2, {nn.Linear}, dtype=torch.qint8)


@functools.cache
def products(folder: Path, precision: str) -> Step:
    """All matrix products of a step and nothing else, each in its precision."""
    config = Checkpoint.load(folder / "checkpoint").captioner.gpt2.config  # the rest is let go
    head = {"fp32": "fp32", "fp16": "rough"}.get(precision, "int8")  # as ours has its output layer
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    layer = [(width, 3 * width), (width, width), (width, inner), (inner, width)]
    calls = [_product(*sizes, precision) for sizes in layer * config.n_layer]
    calls.append(_product(width, config.vocab_size, head))

    def run() -> None:
        for call in calls:
            call()

    return run


def _product(inputs: int, outputs: int, precision: str) -> Callable[[], Tensor]:
    """One product of [R, in] rows that have its precision already."""
    weight, x = torch.randn(outputs, inputs), torch.randn(ROWS, inputs)
    if precision == "int8":
        packed = torch.ops.onednn.qlinear_prepack((weight * 30).clamp(-127, 127).char(), None)
        scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
        rounded = (x * 30 + 128).clamp(0, 255).byte()
        more = (None, 1.0, 0, torch.float32, "none", [], "")
        multiply = torch.ops.onednn.qlinear_pointwise
        return lambda: multiply(rounded, 1.0, 128, packed, scales, zeros, *more)
    if precision == "rough":
        linear = nn.Linear(inputs, outputs, bias=False)
        packed = narrow_output_linear(linear, "fp16").packed
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return lambda: multiply(x, 1.0 / 63.0, 64, packed)
    if precision == "fp16":
        half = torch.ops.quantized.linear_prepack_fp16(weight, None)
        return lambda: torch.ops.quantized.linear_dynamic_fp16(x, half)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = x.to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), ROWS)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def steps(folder: Path, groups: Sequence[str]) -> tuple[dict[str, Callable[[], Step]], list[str]]:
    """Name -> what makes its step, of the groups; and a line for each that cannot be had."""
    found: dict[str, Callable[[], Step]] = {}
    if "ours" in groups:
        for precision in available():
            found[f"ours {precision}"] = partial(our_step, folder, precision)
            found[f"products {precision}"] = partial(products, folder, precision)
    if "hf" in groups:
        for dtype in dtypes():
            found[f"Hugging Face {short(dtype)}"] = partial(hugging_face_step, folder, dtype)
    if "int8" in groups:
        found["torch dynamic int8"] = partial(hugging_face_step, folder, torch.float32, True)
    others, missing = converted(groups, folder)
    return found | others, missing
