"""Mappers: shapes, the published names of their parameters, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import MapperConfig
from model.network.mapper import TransformerMapper, build_mapper
from model.refusal import Refusal

WIDTH, FEATURE = 32, 24


KINDS = ["mlp", "transformer", "linear", "patch"]


def features_of(kind: str, batch: int) -> Tensor:
    """A feature of each image, or of each of its 5 patches."""
    return torch.randn(batch, *([5] if kind == "patch" else []), FEATURE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_feature_becomes_a_prefix(kind: str, batch: int):
    mapper = build_mapper(MapperConfig(kind, 5, clip_length=3, layers=2, heads=4), FEATURE, WIDTH)
    assert mapper(features_of(kind, batch)).shape == (batch, 5, WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_every_prefix_vector_depends_on_the_feature_of_its_own_row(kind: str):
    torch.manual_seed(0)
    mapper = build_mapper(MapperConfig(kind, 5, clip_length=3, layers=2, heads=4), FEATURE, WIDTH)
    features = features_of(kind, 2)
    changed = torch.stack([features[0], features[1] + torch.arange(FEATURE) / FEATURE])
    before, after = mapper(features), mapper(changed)
    torch.testing.assert_close(before[0], after[0])
    assert ((before[1] - after[1]).abs().amax(-1) > 1e-4).all()


def test_parameters_have_the_published_names_and_shapes():
    mlp = build_mapper(MapperConfig("mlp", 10), 512, 768).state_dict()
    assert {name: list(value.shape) for name, value in mlp.items()} == {
        "model.0.weight": [3840, 512],
        "model.0.bias": [3840],
        "model.2.weight": [7680, 3840],
        "model.2.bias": [7680],
    }
    config = MapperConfig("transformer", 5, clip_length=3, layers=2, heads=4)
    names = set(build_mapper(config, FEATURE, WIDTH).state_dict())
    layer = {
        *(f"norm{n}.{part}" for n in (1, 2) for part in ("weight", "bias")),
        *(f"mlp.fc{n}.{part}" for n in (1, 2) for part in ("weight", "bias")),
        "attn.to_queries.weight",
        "attn.to_keys_values.weight",
        "attn.project.weight",
        "attn.project.bias",
    }
    assert names == {"prefix_const", "linear.weight", "linear.bias"} | {
        f"transformer.layers.{n}.{each}" for n in (0, 1) for each in layer
    }


def test_mlp_is_two_layers_with_tanh_between():
    mapper = build_mapper(MapperConfig("mlp", 5), FEATURE, WIDTH)
    weights = mapper.state_dict()
    feature = torch.randn(FEATURE)
    hidden = torch.tanh(weights["model.0.weight"] @ feature + weights["model.0.bias"])
    expected = weights["model.2.weight"] @ hidden + weights["model.2.bias"]
    torch.testing.assert_close(mapper(feature[None])[0].flatten(), expected)


def test_a_patch_becomes_a_vector_of_its_own():
    mapper = build_mapper(MapperConfig("patch", 5), FEATURE, WIDTH)
    patches, weights = features_of("patch", 1), mapper.state_dict()
    one = F.layer_norm(patches[0, 3], (FEATURE,), weights["norm.weight"], weights["norm.bias"])
    hidden = F.gelu(weights["fc1.weight"] @ one + weights["fc1.bias"])
    expected = weights["fc2.weight"] @ hidden + weights["fc2.bias"]
    torch.testing.assert_close(mapper(patches)[0, 3], expected)


def test_the_transformer_attends_head_by_head_without_a_mask():
    torch.manual_seed(0)
    config = MapperConfig("transformer", 5, clip_length=3, layers=2, heads=4)
    mapper = build_mapper(config, FEATURE, WIDTH)
    assert isinstance(mapper, TransformerMapper)
    feature = torch.randn(FEATURE)
    weights = mapper.state_dict()
    clip = (weights["linear.weight"] @ feature + weights["linear.bias"]).view(3, WIDTH)
    hidden = torch.cat([clip, weights["prefix_const"]])
    for n in (0, 1):
        start = f"transformer.layers.{n}."
        own = {name[len(start) :]: w for name, w in weights.items() if name.startswith(start)}
        hidden = hidden + attention(norm(hidden, own, "norm1"), own)
        inner = F.relu(norm(hidden, own, "norm2") @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"])
        hidden = hidden + inner @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
    torch.testing.assert_close(mapper(feature[None])[0], hidden[3:], atol=1e-5, rtol=1e-5)


def norm(hidden: Tensor, own: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(hidden, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"])


def attention(hidden: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Softmax attention over all positions [L, E], one of four heads at a time."""
    keys_values = hidden @ own["attn.to_keys_values.weight"].T
    query = hidden @ own["attn.to_queries.weight"].T
    key, value = keys_values[:, :WIDTH], keys_values[:, WIDTH:]
    each = WIDTH // 4
    heads = []
    for head in range(4):
        part = slice(head * each, (head + 1) * each)
        likeness = query[:, part] @ key[:, part].T / each**0.5
        heads.append(likeness.softmax(-1) @ value[:, part])
    return torch.cat(heads, 1) @ own["attn.project.weight"].T + own["attn.project.bias"]


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(Refusal, match="mapper.kind is 'cnn'; it must be mlp, transformer, linear "):
        build_mapper(MapperConfig("cnn"), FEATURE, WIDTH)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(Refusal, match="mapper.heads is 5, which does not divide GPT-2's width 32"):
        build_mapper(MapperConfig("transformer", heads=5), FEATURE, WIDTH)
