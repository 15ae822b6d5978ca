"""The artifact as a server loads it: `captioner.pt`, `captioner.json`, `tokenizer.json`.

`captioner.pt` is one TorchScript file (written by `model.export`); `captioner.json` says
everything else a server must know. Needs torch, Pillow and tokenizers only.

Axes: B batch, D CLIP width, S image side, P image patches, M captions an image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.image.preprocessing import Preprocessing
from model.layers.int8_linear import suppress_quantized_tensor_warning
from model.layers.memory import map_parameters, release_free_memory
from model.layers.precision import unsupported_reason
from model.options import BadOption, GenerationOptions
from model.refusal import Refusal
from model.tokenizer import load_tokenizer

#: Version of the layout of `captioner.json`; another one is refused.
FORMAT = 1
#: What a server reads from it.
_NEEDED = {
    "sha256",
    "precision",
    "preprocessing",
    "generation",
    "max_tokens",
    "end_token_id",
    "end_token_is_text",
}
#: Runs TorchScript as it is written. Its optimiser takes a second for the first caption of a
#: process, and nearly all the time goes to products that it cannot change. A decorator.
as_written = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class GeneratedCaption:
    """One caption of one image.

    Attributes:
        text: What it says.
        log_prob: Log-probability of its tokens, summed, in nats.
        tokens: How many tokens that were, the end token included.
    """

    text: str
    log_prob: float
    tokens: int

    @property
    def confidence(self) -> float:
        """exp(mean token log-probability), from 0 to 1."""
        return math.exp(self.log_prob / self.tokens)


def _pack(module: Any) -> None:
    """Pack all layers, side by side: one layer's packing keeps one core busy at best."""
    threads = torch.get_num_threads()

    def pack(layer: Any) -> None:
        torch.set_num_threads(1)  # of this thread, and of those that are yet to begin
        layer.pack()

    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pack, [each for each in module.modules() if hasattr(each, "pack")]))
    finally:
        torch.set_num_threads(threads)


class Artifact:
    """A loaded captioner: pixels to features, features to captions.

    Args:
        module: The TorchScript module, or the same module not yet exported.
        info: `captioner.json`.
        tokenizer: Turns token ids into text.
    """

    def __init__(self, module: Any, info: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.module = module
        self.info = info
        self.tokenizer = tokenizer
        self.preprocessing = Preprocessing.from_dict(info["preprocessing"])
        self.defaults = GenerationOptions(**info["generation"])

    @classmethod
    def load(cls, folder: str | Path) -> Artifact:
        """Read an artifact folder.

        Raises:
            Refusal: A file is missing or damaged, or they are not of one export.
        """
        folder = Path(folder)
        for name in ("captioner.pt", "captioner.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise Refusal(f"{folder / name} is missing; export the captioner again")
        try:
            info = json.loads((folder / "captioner.json").read_text())
        except ValueError as error:
            raise Refusal(f"{folder / 'captioner.json'} is not JSON: {error}") from None
        format_ = info.get("format") if isinstance(info, dict) else None
        if format_ != FORMAT:
            raise Refusal(
                f"{folder / 'captioner.json'} has format {format_!r}; this version "
                f"reads {FORMAT}; export the captioner again"
            )
        if missing := sorted(_NEEDED - info.keys()):
            raise Refusal(
                f"{folder / 'captioner.json'} lacks {', '.join(missing)}; "
                "export the captioner again"
            )
        if reason := unsupported_reason(info["precision"]):
            raise Refusal(
                f"{folder / 'captioner.pt'} was exported in {info['precision']}: {reason}; export "
                "it with export.precision=fp32, or on a machine like this one"
            )
        with (folder / "captioner.pt").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != info["sha256"]:
            raise Refusal(
                f"{folder / 'captioner.pt'} is not the file captioner.json was written for "
                f"(SHA-256 {digest[:12]}…, expected {info['sha256'][:12]}…); export it again"
            )
        suppress_quantized_tensor_warning()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(folder / "captioner.pt"), map_location="cpu").eval()
        map_parameters(module, folder / "captioner.pt")  # first: packing needs room
        _pack(module)
        release_free_memory()
        return cls(module, info, load_tokenizer(folder / "tokenizer.json"))

    @torch.inference_mode()
    @as_written
    def encode(self, pixels: Tensor) -> Tensor:
        """Features [B, D] or [B, P, D] of normalised pixels, float32 [B, 3, S, S]."""
        return self.module.encode(pixels)

    @torch.inference_mode()
    @as_written
    def search(self, features: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [B, M, T], lengths [B, M] and log-probabilities [B, M]; see `Search.forward`.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.
            options: How to search; M is `num_captions`.
        """
        return self.module.caption(features, *options.to_dict().values())

    @torch.inference_mode()
    @as_written
    def score(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T] of given tokens [B, T], each after those before it, in nats."""
        return self.module.score(features, tokens)

    def tokens(self, features: Tensor, options: GenerationOptions) -> list[list[int]]:
        """Token ids of the best caption of each feature, the end token included; see `search`."""
        tokens, lengths, _ = self.search(features, options)
        best = zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True)
        return [ids[:length] for ids, length in best]

    def caption(self, features: Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        """Captions of a batch of features, all with the same options.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.
            options: How to search.

        Returns:
            For each feature its `num_captions` captions, best first.

        Raises:
            BadOption: More tokens than the language model has positions for.
        """
        self.check(options)
        tokens, lengths, log_probs = self.search(features, options)
        return [
            [
                GeneratedCaption(self.text(ids[:length]), log_prob, length)
                for ids, length, log_prob in zip(*image, strict=True)
            ]
            for image in zip(tokens.tolist(), lengths.tolist(), log_probs.tolist(), strict=True)
        ]

    def check(self, options: GenerationOptions) -> None:
        """Refuse options that go beyond this model's own limits."""
        if options.max_tokens > self.info["max_tokens"]:
            raise BadOption(
                "max_tokens", options.max_tokens, f"at most {self.info['max_tokens']} here"
            )

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids; the end token is dropped unless it is a word of the caption."""
        end = self.info["end_token_id"]
        if ids and ids[-1] == end and not self.info["end_token_is_text"]:
            ids = ids[:-1]
        return " ".join(self.tokenizer.decode(list(ids)).split())
