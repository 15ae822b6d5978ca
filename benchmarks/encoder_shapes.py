"""Published image encoders by name: their sizes, and a folder of each with random weights.

The sizes are those of the papers and of the published `config.json`; those of CLIP, LAION, MetaCLIP
and SigLIP also stand in open_clip's `src/open_clip/model_configs`. Only the image tower is of the
published size: the text tower, which a captioner does not use, is tiny.

    CLIP           arXiv 2103.00020, table 19 and 20      TinyCLIP     arXiv 2309.12314
    LAION's CLIP   arXiv 2210.08402                       MetaCLIP     arXiv 2309.16671
    Chinese CLIP   arXiv 2211.01335                       MetaCLIP 2   arXiv 2507.22062
    AltCLIP        arXiv 2211.06679
    SigLIP         arXiv 2303.15343                       SigLIP 2     arXiv 2502.14786
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

#: Width, layers, heads, width of the feed-forward layers.
TINY, SMALL, BASE = (256, 10, 4, 1024), (384, 12, 6, 1536), (768, 12, 12, 3072)
LARGE, HUGE, GIANT = (1024, 24, 16, 4096), (1280, 32, 16, 5120), (1408, 40, 16, 6144)
BIG_G, SO400M, GIANT_OPT = (1664, 48, 16, 8192), (1152, 27, 16, 4304), (1536, 40, 16, 6144)
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
_CLIPS: Mapping[str, tuple[Any, Any, Any]] = {
    "clip": (CLIPModel, CLIPConfig, CLIPImageProcessorPil),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, ChineseCLIPImageProcessorPil),
    "altclip": (AltCLIPModel, AltCLIPConfig, CLIPImageProcessorPil),
    "metaclip_2": (MetaClip2Model, MetaClip2Config, CLIPImageProcessorPil),
}


@dataclasses.dataclass(frozen=True)
class Named:
    """A published image encoder.

    Attributes:
        family: The family, as the page groups them.
        name: Its name on the Hugging Face hub.
        kind: `model_type` of its `config.json`, or `open_clip` for a ResNet.
        sizes: Width, layers, heads and feed-forward width; of a ResNet its width and the blocks of
            its four stages.
        patch: Side of a patch in pixels; 0 for a ResNet.
        image: Side of the picture in pixels.
        feature: Width of the pooled feature.
        activation: `hidden_act` of the config.
    """

    family: str
    name: str
    kind: str
    sizes: tuple[int, ...]
    patch: int
    image: int
    feature: int
    activation: str = "quick_gelu"


def _clip(family: str, name: str, sizes: tuple[int, ...], *more: Any, **others: Any) -> Named:
    return Named(family, name, others.pop("kind", "clip"), sizes, *more, **others)


def _siglip(family: str, name: str, sizes: tuple[int, ...], patch: int, image: int) -> Named:
    return Named(
        family, f"google/{name}", "siglip", sizes, patch, image, sizes[0], "gelu_pytorch_tanh"
    )


def _resnet(name: str, width: int, blocks: tuple[int, ...], image: int, feature: int) -> Named:
    sizes = (width, *blocks)
    return Named(
        "CLIP's ResNets", f"timm/{name}_clip.openai", "open_clip", sizes, 0, image, feature
    )


#: Every name of the page, in its order: from the smallest to the largest of each family.
NAMES = (
    _clip("CLIP", "openai/clip-vit-base-patch32", BASE, 32, 224, 512),
    _clip("CLIP", "openai/clip-vit-base-patch16", BASE, 16, 224, 512),
    _clip("CLIP", "openai/clip-vit-large-patch14", LARGE, 14, 224, 768),
    _clip("CLIP", "openai/clip-vit-large-patch14-336", LARGE, 14, 336, 768),
    _resnet("resnet50", 64, (3, 4, 6, 3), 224, 1024),
    _resnet("resnet101", 64, (3, 4, 23, 3), 224, 512),
    _resnet("resnet50x4", 80, (4, 6, 10, 6), 288, 640),
    _resnet("resnet50x16", 96, (6, 8, 18, 8), 384, 768),
    _resnet("resnet50x64", 128, (3, 15, 36, 10), 448, 1024),
    _clip("TinyCLIP", "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M", TINY, 16, 224, 512),
    _clip(
        "LAION's CLIP", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", BASE, 32, 224, 512,
        activation="gelu",
    ),
    _clip(
        "LAION's CLIP", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", HUGE, 14, 224, 1024,
        activation="gelu",
    ),
    _clip(
        "LAION's CLIP", "laion/CLIP-ViT-g-14-laion2B-s12B-b42K", GIANT, 14, 224, 1024,
        activation="gelu",
    ),
    _clip(
        "LAION's CLIP", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", BIG_G, 14, 224, 1280,
        activation="gelu",
    ),
    _clip("MetaCLIP", "facebook/metaclip-b32-400m", BASE, 32, 224, 512),
    _clip("MetaCLIP", "facebook/metaclip-h14-fullcc2.5b", HUGE, 14, 224, 1024),
    _clip(
        "MetaCLIP 2", "facebook/metaclip-2-worldwide-s16", SMALL, 16, 224, 384,
        kind="metaclip_2", activation="gelu",
    ),
    _clip(
        "MetaCLIP 2", "facebook/metaclip-2-worldwide-giant", BIG_G, 14, 224, 1280,
        kind="metaclip_2", activation="gelu",
    ),
    _clip(
        "Chinese CLIP", "OFA-Sys/chinese-clip-vit-base-patch16", BASE, 16, 224, 512,
        kind="chinese_clip",
    ),
    _clip(
        "Chinese CLIP", "OFA-Sys/chinese-clip-vit-huge-patch14", HUGE, 14, 224, 1024,
        kind="chinese_clip",
    ),
    _clip("AltCLIP", "BAAI/AltCLIP", LARGE, 14, 224, 768, kind="altclip"),
    _siglip("SigLIP", "siglip-base-patch16-224", BASE, 16, 224),
    _siglip("SigLIP", "siglip-base-patch16-512", BASE, 16, 512),
    _siglip("SigLIP", "siglip-large-patch16-384", LARGE, 16, 384),
    _siglip("SigLIP", "siglip-so400m-patch14-224", SO400M, 14, 224),
    _siglip("SigLIP", "siglip-so400m-patch14-384", SO400M, 14, 384),
    _siglip("SigLIP 2", "siglip2-base-patch32-256", BASE, 32, 256),
    _siglip("SigLIP 2", "siglip2-base-patch16-224", BASE, 16, 224),
    _siglip("SigLIP 2", "siglip2-large-patch16-512", LARGE, 16, 512),
    _siglip("SigLIP 2", "siglip2-so400m-patch16-512", SO400M, 16, 512),
    _siglip("SigLIP 2", "siglip2-giant-opt-patch16-256", GIANT_OPT, 16, 256),
    _siglip("SigLIP 2", "siglip2-giant-opt-patch16-384", GIANT_OPT, 16, 384),
)  # fmt: skip


def save_encoder(named: Named, folder: Path) -> None:
    """Write a folder as the one on the hub is written, with random weights.

    Args:
        named: Which encoder.
        folder: The folder; it is made.
    """
    torch.manual_seed(0)
    if named.kind == "open_clip":
        _save_resnet(named, folder)
        return
    width, layers, heads, inner = named.sizes
    vision = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "patch_size": named.patch,
        "image_size": named.image,
        "hidden_act": named.activation,
    }
    if named.kind == "siglip":
        SiglipModel(SiglipConfig(vision_config=vision, text_config=_TEXT)).save_pretrained(folder)
        filter_ = 2 if "siglip2" in named.name else 3  # bilinear, bicubic
        square = {"height": named.image, "width": named.image}
        SiglipImageProcessorPil(size=square, resample=filter_).save_pretrained(folder)
        return
    model, config, processor = _CLIPS[named.kind]
    text = {**_TEXT, "project_dim": named.feature} if named.kind == "altclip" else _TEXT
    sizes = config(vision_config=vision, text_config=text, projection_dim=named.feature)
    model(sizes).save_pretrained(folder)
    side = {"height": named.image, "width": named.image}
    processor(size={"shortest_edge": named.image}, crop_size=side).save_pretrained(folder)


def _save_resnet(named: Named, folder: Path) -> None:
    """CLIP's ResNet in the files of open_clip (the extra `openclip`)."""
    from open_clip import CLIP

    width, *blocks = named.sizes
    vision = {"image_size": named.image, "layers": blocks, "width": width, "patch_size": None}
    text = {"context_length": 9, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1}
    sizes = {"embed_dim": named.feature, "vision_cfg": vision, "text_cfg": text}
    clip = CLIP(**sizes)
    with torch.no_grad():  # a new one scales half of its layers with nothing
        for parameter in clip.visual.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    folder.mkdir(parents=True)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    described = {"model_cfg": sizes, "preprocess_cfg": {"resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
