"""A decode step as others compile it, for `benchmarks.decode`: torch, AOTInductor, OpenVINO.

What they are given is GPT-2 behind a cache of a fixed length, a function of tensors alone; a
captioner made of it would still have to search, and to move caches after each step of it.

Axes: R rows, H heads, W width of a head, P positions.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from benchmarks.contestants import short
from benchmarks.machine import dtypes
from model.checkpoint import Checkpoint

#: 8 pictures of 5 beams, each behind so many positions, choose so many tokens.
IMAGES, BEAMS, POSITIONS, CHOICES = 8, 5, 20, 10
ROWS = IMAGES * BEAMS
#: One step.
Step = Callable[[], Any]


class CachedStep(nn.Module):
    """A step as a function of tensors alone, for converters.

    Gives back the new keys and values only: whoever keeps the cache is not charged for it.
    """

    def __init__(self, gpt2: GPT2LMHeadModel) -> None:
        super().__init__()
        self.gpt2 = gpt2.transformer
        self.head = gpt2.lm_head
        self.heads = gpt2.config.n_head

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Tokens [R] behind keys and values [layers, R, H, P, W]: the likeliest, and new keys."""
        hidden = self.gpt2.wte(tokens) + self.gpt2.wpe.weight[POSITIONS]
        rows, width = hidden.shape
        new = []
        for layer, block in enumerate(self.gpt2.h):
            packed = block.attn.c_attn(block.ln_1(hidden)).view(rows, 3, self.heads, 1, -1)
            query, key, value = packed.unbind(1)
            mixed = F.scaled_dot_product_attention(
                query, torch.cat([keys[layer], key], 2), torch.cat([values[layer], value], 2)
            )
            hidden = hidden + block.attn.c_proj(mixed.reshape(rows, width))
            hidden = hidden + block.mlp(block.ln_2(hidden))
            new += [key, value]
        scores = self.head(self.gpt2.ln_f(hidden)).log_softmax(-1)
        best, ids = scores.topk(CHOICES)
        return best, ids, torch.stack(new)


@functools.cache
def openvino_step(folder: Path, precision: str) -> Step:
    """OpenVINO's step; int8 is that of the weights."""
    import openvino as ov

    model, inputs = _cached_step(folder, torch.float32)
    arrays = [each.numpy() for each in inputs]
    converted = ov.convert_model(model, example_input=inputs)
    converted.reshape(dict(enumerate(map(list, (each.shape for each in arrays)))))
    if precision == "int8":
        import nncf

        nncf.set_log_level("ERROR")
        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # it would pin the thread that torch calls from
    }
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()
    for place, array in enumerate(arrays):
        # A copy, once: the request does not keep what it borrows alive.
        request.set_input_tensor(place, ov.Tensor(array, shared_memory=False))
    return request.infer


def _cached_step(folder: Path, dtype: torch.dtype) -> tuple[CachedStep, tuple[Tensor, ...]]:
    """A step in a precision, and what it takes."""
    gpt2 = Checkpoint.load(folder / "checkpoint").captioner.gpt2.to(dtype)
    config = gpt2.config
    shape = (config.n_layer, ROWS, config.n_head, POSITIONS, config.n_embd // config.n_head)
    past = (torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype))
    return CachedStep(gpt2).eval(), (torch.randint(config.vocab_size, (ROWS,)), *past)


@functools.cache
def compiled_step(folder: Path, dtype: torch.dtype) -> Step:
    """A step through torch.compile, weights frozen into it."""
    model, inputs = _cached_step(folder, dtype)
    compiled = torch.compile(model, options={"freezing": True})
    compiled(*inputs)
    return lambda: compiled(*inputs)


@functools.cache
def ahead_of_time_step(folder: Path, dtype: torch.dtype) -> Step:
    """A step through AOTInductor: a library that needs no compiler where it runs."""
    model, inputs = _cached_step(folder, dtype)
    with tempfile.TemporaryDirectory() as temporary:
        package = torch._inductor.aoti_compile_and_package(
            torch.export.export(model, inputs),
            package_path=f"{temporary}/step.pt2",
            inductor_configs={"freezing": True},
        )
        compiled = torch._inductor.aoti_load_package(package)
    return lambda: compiled(*inputs)


def converted(
    groups: Sequence[str], folder: Path
) -> tuple[dict[str, Callable[[], Step]], list[str]]:
    """Name -> what makes its step, and a line for each that cannot be had."""
    found: dict[str, Callable[[], Step]] = {}
    missing: list[str] = []
    if "compile" in groups:
        for dtype in dtypes():
            found[f"torch.compile {short(dtype)}"] = partial(compiled_step, folder, dtype)
            found[f"AOTInductor {short(dtype)}"] = partial(ahead_of_time_step, folder, dtype)
    narrow = torch.bfloat16 in dtypes()
    if not narrow:
        missing.append("Others in bf16 are left out: this processor has no products of it.")
    if "openvino" in groups:
        for precision, package in (("fp32", "openvino"), ("bf16", "openvino"), ("int8", "nncf")):
            if precision == "bf16" and not narrow:
                continue
            if importlib.util.find_spec(package) is None:
                missing.append(f"OpenVINO {precision} is left out: pip install -e '.[benchmarks]'")
            else:
                found[f"OpenVINO {precision}"] = partial(openvino_step, folder, precision)
    return found, missing
