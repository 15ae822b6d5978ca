"""Inputs of real size: a checkpoint with random weights, and JPEG files.

`python -m benchmarks.real_size --out DIR` writes a checkpoint folder of ViT-B/32 at 224 pixels, an
MLP mapper with a prefix of 10 and GPT-2 124M; `make serve CHECKPOINT=DIR` exports and serves it.
Its captions mean nothing, but its sizes, times and memory are those of the published models. The
tokenizer has GPT-2's number of entries; the entries are generated.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPVisionConfig, GPT2Config

from benchmarks.machine import options_parser
from model.checkpoint import Checkpoint
from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap
from model.options import GenerationOptions
from model.pretrained.sources import CLIP_MEAN, CLIP_STD

END = "<|endoftext|>"
#: Beams and tokens of a caption. The length is fixed: that of random captions must not decide how
#: long they take.
BEAMS, TOKENS = 5, 20


def byte_pair_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer: 256 bytes, pairs of them up to the vocabulary, the end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.islice(itertools.product(letters, letters), vocabulary - 257))
    words = [*letters, *(a + b for a, b in pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def random_checkpoint(tiny: bool = False, seed: int = 0) -> Checkpoint:
    """A captioner with random weights.

    Args:
        tiny: A few hundred kilobytes for quick runs, instead of the published sizes (paper,
            section 4).
        seed: Of the weights.
    """
    # The defaults are ViT-B/32's and GPT-2 124M's.
    clip, gpt2 = CLIPVisionConfig(projection_dim=512), GPT2Config()
    if tiny:
        clip = CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            image_size=32, patch_size=8, projection_dim=24,
        )  # fmt: skip
        gpt2 = GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=1, n_positions=128)
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
    generation = GenerationOptions(num_beams=BEAMS, max_tokens=TOKENS, min_tokens=TOKENS)
    return Checkpoint(ClipCap(config).eval(), byte_pair_tokenizer(gpt2.vocab_size), generation)


def draw_jpegs(size: tuple[int, int], count: int) -> list[bytes]:
    """JPEG files of blurred colours with grain, with about as many bytes as photos.

    Args:
        size: Width and height in pixels.
        count: How many files.
    """
    rng = np.random.default_rng(1)
    files = []
    for _ in range(count):
        colours = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC))
        grain = rng.integers(-9, 10, smooth.shape, dtype=np.int16)
        image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def main() -> None:
    """Write the checkpoint folder."""
    parser = options_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    options = parser.parse_args()
    random_checkpoint(seed=options.seed).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
