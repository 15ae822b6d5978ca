"""Models with random weights: a CLIP with its tokenizer, and the captioner beside it."""

from __future__ import annotations

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap
from training.captioner.tokenizer import END, START, train_tokenizer
from training.config import Clip


def from_scratch(
    settings: Clip, captions: list[str]
) -> tuple[CLIPModel, PreTrainedTokenizerBase, Preprocessing]:
    """A small random CLIP, and a tokenizer learned from the captions."""
    sizes = settings.model
    bpe = train_tokenizer(captions, sizes.vocabulary, (END, START))
    end, start = bpe.token_to_id(END), bpe.token_to_id(START)
    bpe.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=sizes.max_text,
    )
    vision = {
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch,
        "projection_dim": sizes.projection,
    }
    text = {
        "hidden_size": sizes.text_width,
        "intermediate_size": 4 * sizes.text_width,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": max(1, sizes.text_width // 32),
        "projection_dim": sizes.projection,
        "vocab_size": bpe.get_vocab_size(),
        "max_position_embeddings": sizes.max_text,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    clip = CLIPModel(
        CLIPConfig(vision_config=vision, text_config=text, projection_dim=sizes.projection)
    )
    half = (0.5, 0.5, 0.5)
    return clip, tokenizer, Preprocessing(size=sizes.image_size, mean=half, std=half)


def small_captioner(
    clip: CLIPModel, settings: Clip, preprocessing: Preprocessing, end_token_id: int
) -> ClipCap:
    """The captioner of the caption loss: it reads CLIP's features and writes CLIP's tokens."""
    sizes = settings.captioner
    text: Any = clip.config.text_config
    config = CaptionerConfig(
        clip=None,
        gpt2={
            "vocab_size": text.vocab_size,
            "n_positions": sizes.prefix_length + text.max_position_embeddings,
            "n_embd": sizes.width,
            "n_layer": sizes.layers,
            "n_head": sizes.heads,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": end_token_id,
            "eos_token_id": end_token_id,
        },
        mapper=MapperConfig(kind="mlp", prefix_length=sizes.prefix_length),
        preprocessing=preprocessing,
        feature_width=clip.visual_projection.out_features,
        normalize_feature=False,
        end_token_id=end_token_id,
    )
    return ClipCap(config)
