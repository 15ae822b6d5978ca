"""A checkpoint of real size with random weights: ViT-B/32 at 224 pixels and GPT-2 124M.

`python -m benchmarks.real_size --out DIR` makes the folder; `make serve CHECKPOINT=DIR` then
exports, archives and serves it. Its captions mean nothing; its sizes, times and memory are those
of the published models. The tokenizer has GPT-2's 50,257 entries, but they are made up.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPVisionConfig, GPT2Config

from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.sources import CLIP_MEAN, CLIP_STD

VOCABULARY = 50257
END = "<|endoftext|>"


def byte_pair_tokenizer(vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE: 256 bytes, pairs of them (of GPT-2's size 50,000), and the end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.islice(itertools.product(letters, letters), vocabulary - 257))
    words = [*letters, *(a + b for a, b in pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def real_size_checkpoint(
    seed: int = 0, *, clip: Mapping[str, Any] | None = None, gpt2: Mapping[str, Any] | None = None
) -> Checkpoint:
    """The published sizes (paper, section 4), weights random by seed.

    Args:
        seed: Of the weights.
        clip: Fields of `CLIPVisionConfig` that shall differ, for something small in its place.
        gpt2: Fields of `GPT2Config` that shall differ.
    """
    # The defaults are ViT-B/32's and GPT-2 124M's.
    return random_checkpoint(
        CLIPVisionConfig(projection_dim=512, **clip or {}), GPT2Config(**gpt2 or {}), seed
    )


def random_checkpoint(clip: CLIPVisionConfig, gpt2: GPT2Config, seed: int = 0) -> Checkpoint:
    """A captioner of these two sizes, with an MLP mapper and a prefix of 10."""
    torch.manual_seed(seed)
    end = gpt2.vocab_size - 1
    config = CaptionerConfig(
        clip=clip.to_dict(),
        gpt2={**gpt2.to_dict(), "bos_token_id": end, "eos_token_id": end},
        mapper=MapperConfig(kind="mlp", prefix_length=10),
        preprocessing=Preprocessing(size=clip.image_size, mean=CLIP_MEAN, std=CLIP_STD),
        feature_width=clip.projection_dim,
        normalize_feature=False,
        end_token_id=end,
    )
    generation = GenerationOptions(num_beams=5, max_tokens=20)
    return Checkpoint(ClipCap(config).eval(), byte_pair_tokenizer(gpt2.vocab_size), generation)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    real_size_checkpoint(options.seed).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
