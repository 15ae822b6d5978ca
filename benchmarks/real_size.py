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

from model.captioner import ClipCap
from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.image import Preprocessing
from model.options import GenerationOptions
from model.published import CLIP_MEAN, CLIP_STD

VOCABULARY = 50257
END = "<|endoftext|>"


def real_size_tokenizer() -> Tokenizer:
    """A byte-level BPE of GPT-2's size: 256 bytes, 50,000 pairs of them, and the end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.islice(itertools.product(letters, letters), VOCABULARY - 257))
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
    torch.manual_seed(seed)
    end = VOCABULARY - 1
    config = CaptionerConfig(
        clip=CLIPVisionConfig(projection_dim=512, **clip or {}).to_dict(),  # ViT-B/32's
        gpt2=GPT2Config(bos_token_id=end, eos_token_id=end, **gpt2 or {}).to_dict(),  # GPT-2 124M's
        mapper=MapperConfig(kind="mlp", prefix_length=10),
        preprocessing=Preprocessing(size=224, mean=CLIP_MEAN, std=CLIP_STD),
        feature_width=512,
        normalize_feature=False,
        end_token_id=end,
    )
    generation = GenerationOptions(num_beams=5, max_tokens=20)
    return Checkpoint(ClipCap(config).eval(), real_size_tokenizer(), generation)


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
