"""Packed linear layers against plain ones, and the choice of the likeliest tokens."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from model.layers.linear import ACTIVATIONS, InnerLinear
from model.layers.output_layer import NarrowOutputLayer, OutputLayer, largest
from model.layers.packing import narrow_output_linear, pack_linears
from model.layers.precision import available, unsupported_reason
from model.refusal import Refusal

#: Relative error of a layer, in the Euclidean norm: 24, 11, 8 and 7 bits, weights and inputs.
ERROR = {"fp32": 1e-6, "fp16": 5e-4, "bf16": 5e-3, "int8": 2e-2}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def layer(kind: str) -> nn.Linear:
    """From 96 to 50 wide: `plain`, `no bias`, or with an activation."""
    if kind in ACTIVATIONS:
        return InnerLinear(96, 50, kind)
    return nn.Linear(96, 50, bias=kind == "plain")


@pytest.mark.parametrize("kind", ["plain", "no bias", *ACTIVATIONS])
@pytest.mark.parametrize("precision", available())
@torch.inference_mode()
def test_a_packed_layer_is_the_layer_before_and_after_its_file(precision: str, kind: str):
    plain = nn.Sequential(layer(kind))
    packed = nn.Sequential(*plain)
    pack_linears(packed, precision)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(packed), file)
    loaded = torch.jit.load(io.BytesIO(file.getvalue()))
    before = torch.jit.load(io.BytesIO(file.getvalue()))
    getattr(before, "0").pack()
    x = torch.randn(3, 7, 96) * torch.logspace(-3, 3, 7)[:, None]  # rows of very different size
    x[0, :2] += 1.0
    expected = plain(x)
    error = (packed(x) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < ERROR[precision]
    assert torch.equal(loaded(x), packed(x))
    assert torch.equal(before(x), packed(x))
    alone = torch.cat([packed(row[None]) for row in x.flatten(0, 1)])
    difference = (alone - packed(x).flatten(0, 1)).float().norm(dim=-1)
    assert (difference <= 1e-6 * expected.flatten(0, 1).norm(dim=-1)).all()
    for value in (0.0, -2.5):  # rows of one number
        row = torch.full((2, 96), value)
        torch.testing.assert_close(packed(row).float(), plain(row), rtol=2e-2, atol=3e-2)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 'relu'; it must be none, gelu"):
        InnerLinear(2, 2, "relu")


@torch.inference_mode()
def test_attention_of_torch_keeps_its_own_layers():
    attention = nn.MultiheadAttention(8, 2)
    pack_linears(attention, "fp32")
    attention(torch.ones(1, 1, 8), torch.ones(1, 1, 8), torch.ones(1, 1, 8))


def test_an_unknown_precision_is_refused():
    with pytest.raises(Refusal, match="precision is 'fp8'; it must be fp32, fp16, bf16, int8"):
        pack_linears(nn.Linear(2, 2), "fp8")


def test_fp32_needs_onednn_only_where_its_layers_are_packed_by_it(monkeypatch: pytest.MonkeyPatch):
    assert unsupported_reason("fp32", onednn=True) == ""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert unsupported_reason("fp32") == ""
    assert "oneDNN" in unsupported_reason("fp32", onednn=True)
    plain = nn.Sequential(nn.Linear(2, 2))
    pack_linears(plain, "fp32")
    assert type(plain[0]) is nn.Linear


@pytest.mark.parametrize("vocabulary", [20, 4096, 4099, 50257])
@pytest.mark.parametrize("count", [1, 10, 16, 300])
def test_the_largest_are_those_that_topk_finds(vocabulary: int, count: int):
    scores = torch.randn(2, 3, vocabulary)
    scores[0, 0, -5:] += 10  # in the part that is no whole block
    scores[1, :, 100:164] += 5  # all of them in two blocks
    count = min(count, vocabulary)
    best, ids = largest(scores, count)
    expected = scores.topk(count)
    assert torch.equal(best, expected[0])
    assert torch.equal(ids, expected[1])


@pytest.mark.parametrize("precision", available()[1:])
@pytest.mark.parametrize("forbidden", [-1, 7])
@torch.inference_mode()
def test_the_narrow_output_layer_chooses_as_the_wide_one(forbidden: int, precision: str):
    embedding = nn.Embedding(5000, 64)
    wide = OutputLayer(embedding)
    narrow = NarrowOutputLayer(narrow_output_linear(wide.head, precision), embedding)
    hidden = torch.randn(6, 5, 64)
    hidden[0] = embedding.weight[7]  # token 7 is the likeliest there
    expected, ids = wide(hidden, 10, forbidden)
    scores, chosen = narrow(hidden, 10, forbidden)
    assert torch.equal(chosen, ids)
    near = 1e-2 if precision == "fp16" else 5e-3  # 7 bits of inputs, or 8
    torch.testing.assert_close(scores, expected, rtol=0, atol=near)
    assert forbidden not in chosen.flatten().tolist()
    weights: Tensor = narrow.score(hidden, ids)
    torch.testing.assert_close(weights, wide.score(hidden, ids), rtol=0, atol=near)


@pytest.mark.parametrize("precision", available()[1:])
@torch.inference_mode()
def test_an_8_bit_output_layer_is_near_the_layer_before_and_after_its_file(precision: str):
    plain = nn.Linear(96, 50, bias=False)
    layer = narrow_output_linear(plain, precision)
    file = io.BytesIO()
    torch.jit.save(layer, file)
    loaded = torch.jit.load(io.BytesIO(file.getvalue()))
    before = torch.jit.load(io.BytesIO(file.getvalue()))
    before.pack()
    x = torch.randn(3, 7, 96) * torch.logspace(-3, 3, 7)[:, None]  # rows of very different size
    expected = plain(x)
    error = (layer(x) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 3e-2  # 7 bits of inputs
    assert torch.equal(loaded(x), layer(x))
    assert torch.equal(before(x), layer(x))
    alone = torch.cat([layer(row[None]) for row in x.flatten(0, 1)])
    torch.testing.assert_close(alone, layer(x).flatten(0, 1), rtol=1e-6, atol=0)
    assert torch.equal(layer(torch.zeros(2, 96)), torch.zeros(2, 50))
    # Pairs of products of the largest bytes fit into 16 bits.
    nn.init.ones_(plain.weight)
    full = narrow_output_linear(plain, precision)(torch.ones(1, 96))
    torch.testing.assert_close(full, torch.full((1, 50), 96.0))


@pytest.mark.parametrize("precision", available()[1:])
def test_logits_for_rules_are_exact_where_rules_look(precision: str):
    torch.manual_seed(3)
    embedding = torch.nn.Embedding(5000, 64)
    wide = OutputLayer(embedding)
    narrow = NarrowOutputLayer(narrow_output_linear(wide.head, precision), embedding)
    hidden, own = torch.randn(3, 2, 64), torch.randint(0, 5000, (3, 2, 7))
    exact, found = wide.logits(hidden, own, 5), narrow.logits(hidden, own, 5)
    torch.testing.assert_close(found.gather(-1, own), exact.gather(-1, own), atol=1e-4, rtol=0)
    best, ids = exact.topk(5 + own.shape[-1], -1)
    torch.testing.assert_close(found.gather(-1, ids), best, atol=1e-4, rtol=0)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    none = own[..., :0]
    torch.testing.assert_close(narrow.logits(hidden, none, 2).amax(-1), exact.amax(-1))
