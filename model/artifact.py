"""The exported captioner as a server loads it: `captioner.pt`, `captioner.json`, `tokenizer.json`.

`captioner.pt` is one TorchScript file, written by `model.export`. It runs on the version of torch
that wrote it: its layers use private operators of torch. `captioner.json` holds everything else
that a server needs. `ood.pt` is there if the captioner knows what its training images looked like
(`model.ood`). This file needs torch, Pillow and tokenizers only.

Axes: B batch, D CLIP width, S image side, P image patches, M captions an image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.image.preprocessing import Preprocessing
from model.layers.loading import CPU, load_module
from model.layers.precision import unsupported_on
from model.ood import OodScore
from model.options import OPTIONS, BadOption, GenerationOptions
from model.refusal import Refusal
from model.tokenizer import decode, load_tokenizer

#: Version of the layout of `captioner.json`; a file of another version is refused.
FORMAT = 3
#: The out-of-distribution score, if the captioner has one.
OOD_FILE = "ood.pt"
#: Why a caption ends: with the end token, at `max_tokens`, or at `max_characters`.
FINISH_REASONS = ("end", "length", "characters")
#: How often each caption of a draw is drawn again while it equals another one of its image.
DRAWS = 4
#: The fields of `captioner.json` that every artifact needs.
_REQUIRED = {
    "precision",
    "onednn",
    "preprocessing",
    "generation",
    "max_tokens",
    "positions",
    "prefix_length",
    "end_token_id",
    "end_token_is_text",
}
#: A decorator that runs TorchScript without its optimiser. The optimiser takes a second for the
#: first caption of a process, and nearly all the time of later ones is in matrix products, which it
#: does not change.
unoptimised = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class GeneratedCaption:
    """One caption of one image.

    Attributes:
        text: The caption.
        log_prob: Log-probability of its tokens, summed, in nats.
        tokens: Number of tokens, the end token included.
        finish_reason: `end`, or `length` where it was cut at `max_tokens`, or `characters` at
            `max_characters`.
        ids: The token ids, the end token included.
        quality: Expected correctness, from 0 to 1 (see `model.network.quality`); None from a
            captioner without a quality head.
    """

    text: str
    log_prob: float
    tokens: int
    finish_reason: str = "end"
    ids: tuple[int, ...] = ()
    quality: float | None = None

    @property
    def confidence(self) -> float:
        """exp(mean token log-probability), from 0 to 1."""
        return math.exp(self.log_prob / self.tokens)


class Artifact:
    """A loaded captioner: pixels to features, features to captions.

    Args:
        module: The TorchScript module, or the same module not yet exported.
        info: The fields of `captioner.json`.
        tokenizer: Turns token ids into text.
        device: Where the module is. The methods take and give tensors on the CPU.
        ood_score: Compares features with those of the training images; None for a captioner that
            cannot.

    Attributes:
        preprocessing: How an image becomes the pixels that `encode` takes.
        defaults: The options of captions unless a request gives others.
    """

    def __init__(
        self,
        module: Any,
        info: dict[str, Any],
        tokenizer: Tokenizer,
        device: torch.device = CPU,
        ood_score: OodScore | None = None,
    ) -> None:
        self.module = module
        self.device = device
        self.info = info
        self.tokenizer = tokenizer
        self.ood_score = ood_score
        self.preprocessing = Preprocessing.from_dict(info["preprocessing"])
        self.defaults = GenerationOptions(**info["generation"])

    @classmethod
    def load(cls, folder: str | Path, device: torch.device = CPU) -> Artifact:
        """Read an artifact folder.

        Args:
            folder: As `model.export` writes it.
            device: Where the captioner runs, `cpu` or `cuda:N`.

        Raises:
            Refusal: A file is missing or damaged, they are not of one export, or the device is
                not there or cannot run the precision.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise Refusal(
                f"there is no folder {folder}; export a captioner into it: "
                f"python -m training.export export.out={folder}"
            )
        if (folder / "programs").is_dir():
            raise Refusal(
                f"{folder} holds programs of torch.export, and this needs captioner.pt; export the "
                "captioner again with export.format=torchscript"
            )
        for name in ("captioner.pt", "captioner.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise Refusal(f"{folder / name} is missing; export the captioner again")
        info = read_info(folder / "captioner.json", {"sha256"})
        if reason := unsupported_on(device, info["precision"], info["onednn"]):
            advice = "export it with export.precision=fp32, on a machine like this one"
            if device.type != "cpu":
                advice = f"it cannot run on {device}"
            raise Refusal(
                f"{folder / 'captioner.pt'} was exported in {info['precision']}: {reason}; {advice}"
            )
        with (folder / "captioner.pt").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != info["sha256"]:
            raise Refusal(
                f"{folder / 'captioner.pt'} is not the file captioner.json was written for "
                f"(SHA-256 {digest[:12]}…, expected {info['sha256'][:12]}…); export it again"
            )
        module = load_module(folder / "captioner.pt", device)
        ood_score = load_ood(folder, info)
        return cls(module, info, load_tokenizer(folder / "tokenizer.json"), device, ood_score)

    @torch.inference_mode()
    @unoptimised
    def encode(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels, float32 [B, 3, S, S], to features, float32 [B, D] or [B, P, D]."""
        return self.module.encode(pixels.to(self.device)).cpu()

    @torch.inference_mode()
    def ood(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """How unusual features are, on the CPU; only where there is an `ood_score`.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.

        Returns:
            Scores float32 [B] and p-values float32 [B], as `model.ood.OodScore` gives them.
        """
        assert self.ood_score is not None, "this captioner has no out-of-distribution score"
        return self.ood_score(features.cpu())

    @torch.inference_mode()
    @unoptimised
    def search(
        self, features: Tensor, options: GenerationOptions, draw: int = 0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Search or draw captions; as token ids.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.
            options: How to search; M is `num_captions`.
            draw: Another number gives other captions of the same seed.

        Returns:
            Token ids int64 [B, M, T], lengths int64 [B, M], log-probabilities float32 [B, M] and
            qualities float32 [B, M] or [B, 0], as `model.network.search.Search.forward` gives them.
        """
        values = options.to_dict()
        seed, prompt = values.pop("seed"), self.prompt_tokens(values.pop("prompt"))
        characters = values.pop("max_characters")
        chances = None
        if options.temperature > 0:
            chances = random_numbers(seed, draw, options.num_captions, options.max_tokens)
            chances = chances.to(self.device)
        head = torch.tensor(prompt, device=self.device) if prompt else None
        tokens, lengths, log_probs, qualities = self.module.caption(
            features.to(self.device), *values.values(), chances, head, characters
        )
        return tokens.cpu(), lengths.cpu(), log_probs.cpu(), qualities.cpu()

    @torch.inference_mode()
    @unoptimised
    def score(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T] of given tokens [B, T], each after those before it, in nats."""
        return self.module.score(features.to(self.device), tokens.to(self.device)).cpu()

    def tokens(self, features: Tensor, options: GenerationOptions) -> list[list[int]]:
        """Token ids of the best caption of each image.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.
            options: How to search.

        Returns:
            B lists of token ids, the end token included where there is one.

        Raises:
            BadOption: More tokens than the language model has positions for.
        """
        self.check(options)
        tokens, lengths, _, _ = self.search(features, options)
        best = zip(tokens[:, 0].tolist(), lengths[:, 0].tolist(), strict=True)
        return [ids[:length] for ids, length in best]

    def caption(self, features: Tensor, options: GenerationOptions) -> list[list[GeneratedCaption]]:
        """Captions of a batch of features, all with the same options.

        Args:
            features: float32 [B, D] or [B, P, D], as `encode` gives them.
            options: How to search.

        Returns:
            For each image its `num_captions` captions, best first.

        Raises:
            BadOption: More tokens than the language model has positions for.
        """
        self.check(options)
        found = self._captions(features, options, 0)
        if options.temperature > 0 and options.num_captions > 1:
            self._draw_again(features, options, found)
        return found

    def _captions(
        self, features: Tensor, options: GenerationOptions, draw: int
    ) -> list[list[GeneratedCaption]]:
        tokens, lengths, log_probs, qualities = self.search(features, options, draw)
        judged: list[list[float | None]] = qualities.tolist()
        if not qualities.shape[1]:
            judged = [[None] * tokens.shape[1]] * len(tokens)
        end, longest = self.info["end_token_id"], options.max_tokens
        longest += len(self.prompt_tokens(options.prompt))

        def described(
            ids: list[int], length: int, log_prob: float, quality: float | None
        ) -> GeneratedCaption:
            reason = "length" if length == longest else "characters"
            reason = "end" if ids[length - 1] == end else reason
            text = self.text(ids[:length])
            if options.max_characters:  # bytes that are no characters become longer as text
                text = text[: options.max_characters].rstrip()
            return GeneratedCaption(text, log_prob, length, reason, tuple(ids[:length]), quality)

        return [
            [described(*caption) for caption in zip(*image, strict=True)]
            for image in zip(
                tokens.tolist(), lengths.tolist(), log_probs.tolist(), judged, strict=True
            )
        ]

    def _draw_again(
        self, features: Tensor, options: GenerationOptions, found: list[list[GeneratedCaption]]
    ) -> None:
        """Replace captions that equal another one of their image; put the most likely first.

        After `DRAWS` draws the equal ones stay: there may be no others.
        """
        for draw in range(1, DRAWS):
            rows = [n for n, own in enumerate(found) if len({each.text for each in own}) < len(own)]
            if not rows:
                break
            for row, new in zip(rows, self._captions(features[rows], options, draw), strict=True):
                different = {caption.text: caption for caption in [*found[row], *new]}
                fill = [*different.values(), *found[row]]
                found[row] = fill[: options.num_captions]
        for own in found:
            own.sort(key=lambda caption: -caption.log_prob)

    def check(self, options: GenerationOptions) -> None:
        """Refuse options that this captioner cannot take, although others could.

        Raises:
            BadOption: More tokens than the language model has positions for, or a prompt that
                holds the end of a caption.
        """
        limit = self.upper_limit("max_tokens")
        if options.max_tokens > limit:
            raise BadOption("max_tokens", options.max_tokens, f"at most {limit:g} here")
        prompt = self.prompt_tokens(options.prompt)
        if self.info["end_token_id"] in prompt:
            raise BadOption("prompt", options.prompt, "text without the end of a caption")
        if 0 < options.max_characters < len(self.text(prompt)):
            raise BadOption(
                "max_characters",
                options.max_characters,
                f"at least the {len(self.text(prompt))} characters of the prompt",
            )
        room = self.info["positions"] - self.info["prefix_length"] - options.max_tokens
        if len(prompt) > room:
            raise BadOption(
                "prompt",
                options.prompt,
                f"at most {room} tokens where max_tokens is {options.max_tokens}; it has "
                f"{len(prompt)}",
            )

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Token ids of the beginning of a caption, as training cuts it; none of blanks."""
        text = prompt.strip()
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def upper_limit(self, name: str) -> float:
        """The largest value of an option here: a language model may have too few positions."""
        if name in ("max_tokens", "min_tokens"):
            return min(OPTIONS[name].high, self.info["max_tokens"])
        return OPTIONS[name].high

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, without the end token unless that is part of the caption."""
        return decode(self.tokenizer, self.text_ids(ids))

    def text_ids(self, ids: Sequence[int]) -> list[int]:
        """Token ids without the end token, unless that is part of the caption."""
        at_end = bool(ids) and ids[-1] == self.info["end_token_id"]
        return list(ids[:-1] if at_end and not self.info["end_token_is_text"] else ids)


def save_ood(score: OodScore, record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write `ood.pt` into an artifact folder; returns what `captioner.json` says of it.

    Args:
        score: The out-of-distribution score.
        record: What it was learned from.
        folder: The artifact folder.
    """
    torch.save(score.state_dict(), folder / OOD_FILE)
    with (folder / OOD_FILE).open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), **record}


def load_ood(folder: Path, info: dict[str, Any]) -> OodScore | None:
    """The out-of-distribution score of an artifact folder; None where `captioner.json` names none.

    Raises:
        Refusal: The file is missing, or another one than that of the export.
    """
    if (described := info.get("ood")) is None:
        return None
    file = folder / OOD_FILE
    if not file.is_file():
        raise Refusal(f"{file} is missing; export the captioner again")
    with file.open("rb") as reader:
        digest = hashlib.file_digest(reader, "sha256").hexdigest()
    if digest != described["sha256"]:
        raise Refusal(
            f"{file} is not the file captioner.json was written for (SHA-256 {digest[:12]}…, "
            f"expected {described['sha256'][:12]}…); export it again"
        )
    tensors = torch.load(file, weights_only=True)
    groups, validation = len(tensors["centres"]), len(tensors["validation"])
    score = OodScore(len(tensors["mean"]), groups, validation)
    score.load_state_dict(tensors)
    return score.eval()


def random_numbers(seed: int, draw: int, captions: int, tokens: int) -> Tensor:
    """Uniform random numbers in [0, 1) for a draw, float32 [captions, tokens].

    A row depends on seed, draw and its number alone. So a caption does not depend on how many
    others are drawn with it.
    """
    rows = []
    for number in range(captions):
        generator = torch.Generator().manual_seed((seed << 16) + (draw << 8) + number)
        rows.append(torch.rand(tokens, generator=generator))
    return torch.stack(rows)


def read_info(file: Path, needed: Set[str]) -> dict[str, Any]:
    """The fields of a `captioner.json` of this version; all that are needed are there.

    Args:
        file: The file.
        needed: Fields that this kind of artifact needs beside those that all need.

    Raises:
        Refusal: It is damaged or of another version, or lacks a field.
    """
    try:
        info = json.loads(file.read_text())
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
    format_ = info.get("format") if isinstance(info, dict) else None
    if format_ != FORMAT:
        raise Refusal(
            f"{file} has format {format_!r}; this version reads {FORMAT}; export the captioner "
            "again"
        )
    if missing := sorted((_REQUIRED | needed) - info.keys()):
        raise Refusal(f"{file} lacks {', '.join(missing)}; export the captioner again")
    return info
