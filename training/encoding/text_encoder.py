"""CLIP's text tower: captions in, features out that CLIP compares with those of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, PreTrainedTokenizerBase


class TextEncoder:
    """The text tower of a CLIP with its tokenizer.

    Args:
        clip: In evaluation mode, on any device.
        tokenizer: Its tokenizer; it writes start and end around a text.
    """

    def __init__(self, clip: CLIPModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.clip = clip
        self.tokenizer = tokenizer
        sizes: Any = clip.config.text_config
        self.positions: int = sizes.max_position_embeddings

    @torch.inference_mode()
    def features(self, texts: Sequence[str]) -> Tensor:
        """The feature of each text; one longer than the tower's positions is cut at its end.

        Returns:
            Normalised, float32 [N, D], on the CPU.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.positions,
            return_tensors="pt",
        ).to(self.clip.device)
        pooled = self.clip.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1).cpu()

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the tower's positions."""
        # verbose: the tokenizer would warn of each long text.
        found = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return sum(len(ids) > self.positions for ids in found)
