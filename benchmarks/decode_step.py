"""One decode step alone, for `benchmarks.decode`: ours, Hugging Face, torch's int8, OpenVINO.

40 rows (8 pictures of 5 beams) that have read 20 positions read one token more: attention,
log-softmax and the choice of the 10 likeliest tokens included. Reordering caches, which ours does
not need, is not counted against the others. And the bound of it: the same matrix products alone,
weights packed as oneDNN likes them best and the inputs already rounded.

Axes: R rows, H heads, W width of a head, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel
from transformers.cache_utils import DynamicCache

from benchmarks.contestants import short
from model.artifact import Artifact

IMAGES, BEAMS, POSITIONS, CHOICES = 8, 5, 20, 10
ROWS = IMAGES * BEAMS
Steps = dict[str, Callable[[], Any]]


def our_step(artifact: Artifact) -> Callable[[], Any]:
    """A step of the exported decoder, with the slots of 5 beams that it then has."""
    decoder = artifact.module.search.decoder
    length, width = artifact.info["prefix_length"], decoder.wpe.weight.shape[1]
    steps = POSITIONS - length
    _, cache = decoder.prefill(torch.randn(IMAGES, length, width), length + BEAMS * (steps + 1))
    used = length + BEAMS * steps
    for part in (*cache.keys, *cache.values):
        part[:, :, length:].normal_()
    own = torch.full((BEAMS, BEAMS), float("-inf")).fill_diagonal_(0.0)
    mask = torch.cat([torch.zeros(BEAMS, length), own.repeat(1, steps + 1)], 1)
    mask = mask.expand(IMAGES, -1, -1).contiguous()
    tokens = torch.randint(artifact.info["vocabulary"], (IMAGES, BEAMS))

    def step() -> Any:
        cache.used = used
        return decoder.output(decoder.step(tokens, POSITIONS, cache, mask), CHOICES, -1)

    return step


def hugging_face_step(gpt2: GPT2LMHeadModel) -> Callable[[], Any]:
    """A step of Hugging Face's GPT-2 behind its own cache."""
    config = gpt2.config
    width = config.n_embd // config.n_head
    dtype = gpt2.transformer.wte.weight.dtype
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
    """Hugging Face's GPT-2 with every linear layer quantised dynamically by torch."""
    gpt2 = copy.deepcopy(gpt2)
    for block in gpt2.transformer.h:
        for module in (block.attn, block.mlp):
            for name in ("c_attn", "c_proj", "c_fc"):
                if old := getattr(module, name, None):
                    new = nn.Linear(*old.weight.shape)  # theirs is [in, out], and not quantised
                    new.weight.data, new.bias.data = old.weight.data.t().contiguous(), old.bias.data
                    setattr(module, name, new)
    return torch.ao.quantization.quantize_dynamic(gpt2, {nn.Linear}, dtype=torch.qint8)


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


def openvino_steps(gpt2: GPT2LMHeadModel, threads: int) -> tuple[Steps, list[str]]:
    """OpenVINO's step in its precisions, and a line for each that cannot be had."""
    if importlib.util.find_spec("openvino") is None:
        return {}, ["OpenVINO is left out: pip install -e '.[benchmarks]'"]
    import openvino as ov

    config = gpt2.config
    shape = (config.n_layer, ROWS, config.n_head, POSITIONS, config.n_embd // config.n_head)
    inputs = (torch.randint(config.vocab_size, (ROWS,)), torch.randn(shape), torch.randn(shape))
    arrays = [each.numpy() for each in inputs]
    core, steps, missing = ov.Core(), {}, []
    for precision in ("fp32", "bf16", "int8"):
        converted = ov.convert_model(CachedStep(gpt2).eval(), example_input=inputs)
        converted.reshape(dict(enumerate(map(list, (each.shape for each in arrays)))))
        if precision == "int8":
            if importlib.util.find_spec("nncf") is None:
                missing.append("OpenVINO int8 is left out: pip install -e '.[benchmarks]' (nncf)")
                continue
            import nncf

            nncf.set_log_level("ERROR")
            converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
        hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # it would pin the thread that torch calls from
        }
        request = core.compile_model(converted, "CPU", settings).create_infer_request()
        for place, array in enumerate(arrays):
            request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
        steps[f"OpenVINO {precision}"] = request.infer
    return steps, missing


def products(gpt2: GPT2LMHeadModel, precision: str, head: str) -> Callable[[], None]:
    """All matrix products of a step and nothing else, each in its precision.

    Args:
        gpt2: Gives the sizes.
        precision: Of the layers.
        head: Of the output layer.
    """
    config = gpt2.config
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
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = x.to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), ROWS)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def steps(
    gpt2: GPT2LMHeadModel, exported: dict[str, Artifact], groups: tuple[str, ...], threads: int
) -> tuple[Steps, list[str]]:
    """Every step of the groups, and a line for each that cannot be had."""
    found: Steps = {}
    missing: list[str] = []
    if "ours" in groups:
        for precision, artifact in exported.items():
            found[f"ours {precision}"] = our_step(artifact)
            head = "fp32" if precision == "fp32" else "int8"
            found[f"products {precision}"] = products(gpt2, precision, head)
    if "hf" in groups:
        for dtype in (torch.float32, torch.bfloat16):
            model = gpt2 if dtype == torch.float32 else copy.deepcopy(gpt2).to(dtype)
            found[f"Hugging Face {short(dtype)}"] = hugging_face_step(model)
    if "int8" in groups:
        found["torch dynamic int8"] = hugging_face_step(torch_int8(gpt2))
    if "openvino" in groups:
        theirs, missing = openvino_steps(gpt2, threads)
        found |= theirs
    return found, missing
