"""Small random models and their folders, as Hugging Face and we would write real ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.pretrained.preprocessor_config import write_preprocessing
from training.captioner.tokenizer import END, START, train_tokenizer

needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="the extra openclip is not installed"
)
WORDS = ["two red boats on a calm sea", "a bird over a snowy lake", "a small house by the road"]
PREPROCESSING = Preprocessing(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


def small_config(**changes: Any) -> CaptionerConfig:
    """A captioner of a few thousand weights, without an encoder."""
    config = CaptionerConfig(
        clip=None,
        gpt2={"vocab_size": 40, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2},
        mapper=MapperConfig(prefix_length=4),
        preprocessing=PREPROCESSING,
        feature_width=12,
        normalize_feature=False,
        end_token_id=0,
    )
    return dataclasses.replace(config, **changes)


def save_clip(
    folder: Path, preprocessing: Preprocessing = PREPROCESSING, seed: int = 0, width: int = 24
) -> Path:
    """A CLIP with both towers, tokenizer and preprocessor, written by `save_pretrained`."""
    bpe = train_tokenizer(WORDS, 300, (END, START))
    end, start = bpe.token_to_id(END), bpe.token_to_id(START)
    bpe.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = {**sizes, "image_size": preprocessing.size, "patch_size": 8}
    text = {
        **sizes,
        "vocab_size": bpe.get_vocab_size(),
        "max_position_embeddings": 24,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    torch.manual_seed(seed)
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=width))
    clip.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=END, model_max_length=24
    ).save_pretrained(folder)
    write_preprocessing(preprocessing, folder)
    return folder


#: CLIP's relatives: model, config and image processor of each.
RELATIVES: dict[str, tuple[Any, Any, Any]] = {
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, ChineseCLIPImageProcessorPil),
    "altclip": (AltCLIPModel, AltCLIPConfig, CLIPImageProcessorPil),
    "metaclip_2": (MetaClip2Model, MetaClip2Config, CLIPImageProcessorPil),
}


def save_relative(kind: str, folder: Path) -> Path:
    """A relative of CLIP with both towers and its preprocessor, written by `save_pretrained`."""
    model, config, processor = RELATIVES[kind]
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    text = {**sizes, "vocab_size": 50} | ({"project_dim": 24} if kind == "altclip" else {})
    torch.manual_seed(3)
    model(config(vision_config=vision, text_config=text, projection_dim=24)).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    processor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """A SigLIP with both towers and its preprocessor, written by `save_pretrained`."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(2)
    SiglipModel(SiglipConfig(vision_config=vision, text_config=sizes)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_resnet(folder: Path) -> Path:
    """A CLIP with a small ResNet, in the files of open_clip's repositories on the hub."""
    from open_clip import CLIP

    folder.mkdir()
    sizes = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 9, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(4)
    clip = CLIP(**sizes)
    with torch.no_grad():  # a new one scales half of its layers with nothing
        for parameter in clip.visual.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    preprocessing = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize_mode": "shortest"}
    described = {"model_cfg": sizes, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def save_gpt2(folder: Path, positions: int = 64, end: str = END) -> Path:
    """A GPT-2 with its tokenizer, written by `save_pretrained`."""
    bpe = train_tokenizer(WORDS, 300, (end,))
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=bpe.get_vocab_size(),
        n_positions=positions,
        n_embd=32,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end).save_pretrained(folder)
    return folder
