"""The serving form of an encoder gives what Hugging Face's modules give."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig

from model.network.conversion import build_vision
from model.network.encoder import build_encoder
from model.refusal import Refusal

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.3,
}


def config(kind: str, **changes: object) -> dict[str, object]:
    made = CLIPVisionConfig if kind == "clip" else SiglipVisionConfig
    return made(
        **{**SIZES, **({"projection_dim": 24} if kind == "clip" else {}), **changes}
    ).to_dict()


@pytest.mark.parametrize("feature", ["pooled", "patches"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("clip", {}),
        ("clip", {"hidden_act": "gelu"}),
        ("clip", {"image_size": 37}),  # no multiple of the patch: the rest is not looked at
        ("siglip", {}),
        ("siglip", {"hidden_act": "gelu"}),
    ],
)
@torch.inference_mode()
def test_features_are_those_of_the_library_s_module(
    kind: str, changes: dict[str, object], feature: str
):
    torch.manual_seed(0)
    encoder = build_encoder(config(kind, **changes)).eval()
    for parameter in encoder.parameters():  # what the library leaves at zero or one
        parameter.add_(0.1 * torch.randn_like(parameter))
    pixels = torch.randn(3, 3, encoder.image_size, encoder.image_size)
    ours = build_vision(encoder, feature)
    torch.testing.assert_close(ours(pixels), encoder.encode(pixels, feature), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours(pixels[:1]), ours(pixels)[:1], atol=1e-5, rtol=1e-5)


def test_an_activation_that_serving_does_not_know_is_refused():
    with pytest.raises(Refusal, match="hidden_act is 'relu'; it must be quick_gelu, gelu, "):
        build_vision(build_encoder(config("clip", hidden_act="relu")), "pooled")
