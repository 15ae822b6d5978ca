"""ClipCap's inference as it was published, slow and obvious: what ours is compared with.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734, sections 3.1
and 3.3, and what their released code does where the paper is silent: greedy search, and a beam
search that ranks captions by the mean log-probability of their tokens at every step, finished ones
among unfinished ones. Nothing is cached, every step reads everything again, and nothing of `model/`
is used: GPT-2 is Hugging Face's, the mapper is written out from the names in the weights file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

#: Not in the file: heads of the transformer mapper, and what GPT-2 has for each of its own.
MAPPER_HEADS, GPT2_HEAD_WIDTH = 8, 64


class Original:
    """A captioner made of published weights.

    Args:
        weights: A flat state dict with `gpt.*` and `clip_project.*`; shared, not copied.
        normalize: Whether features are divided by their norm.
        stop: The token that ends a caption and belongs to it.
    """

    def __init__(self, weights: dict[str, Tensor], normalize: bool, stop: int) -> None:
        self.normalize = normalize
        self.stop = stop
        self.mapper = {
            name.removeprefix("clip_project."): value
            for name, value in weights.items()
            if name.startswith("clip_project.")
        }
        own = {n.removeprefix("gpt."): v for n, v in weights.items() if n.startswith("gpt.")}
        words = own["transformer.wte.weight"]
        config = GPT2Config(
            vocab_size=words.shape[0],
            n_positions=own["transformer.wpe.weight"].shape[0],
            n_embd=words.shape[1],
            n_layer=sum(name.endswith(".ln_1.weight") for name in own),
            n_head=words.shape[1] // GPT2_HEAD_WIDTH,
            n_inner=own["transformer.h.0.mlp.c_fc.weight"].shape[1],
            bos_token_id=stop,
            eos_token_id=stop,
        )
        self.gpt2 = GPT2LMHeadModel(config).eval()
        report = self.gpt2.load_state_dict(own, strict=False, assign=True)
        assert not report.missing_keys
        assert all(name.endswith((".attn.bias", ".masked_bias")) for name in report.unexpected_keys)

    @classmethod
    def read(cls, file: Path, normalize: bool, stop: int) -> Original:
        """The captioner of a published weights file."""
        return cls(torch.load(file, map_location="cpu", weights_only=True), normalize, stop)

    def prefix(self, feature: Tensor) -> Tensor:
        """Prefix [K, E] of a feature [D]."""
        if self.normalize:
            feature = feature / feature.norm()
        own, width = self.mapper, self.gpt2.config.n_embd
        if "prefix_const" not in own:
            hidden = torch.tanh(own["model.0.weight"] @ feature + own["model.0.bias"])
            return (own["model.2.weight"] @ hidden + own["model.2.bias"]).view(-1, width)
        clip = (own["linear.weight"] @ feature + own["linear.bias"]).view(-1, width)  # [C, E]
        hidden = torch.cat([clip, own["prefix_const"]])  # [C+K, E]
        for layer in range(sum(name.endswith(".norm1.weight") for name in own)):
            hidden = self._layer(hidden, f"transformer.layers.{layer}")
        return hidden[len(clip) :]

    def _layer(self, hidden: Tensor, name: str) -> Tensor:
        """A pre-norm transformer layer over [C+K, E], one head after the other."""
        own = {n.removeprefix(f"{name}."): v for n, v in self.mapper.items() if n.startswith(name)}
        width = hidden.shape[1]
        each = width // MAPPER_HEADS
        calm = F.layer_norm(hidden, [width], own["norm1.weight"], own["norm1.bias"])
        queries = calm @ own["attn.to_queries.weight"].T
        keys, values = (calm @ own["attn.to_keys_values.weight"].T).split(width, dim=1)
        mixed = []
        for head in range(MAPPER_HEADS):
            part = slice(head * each, (head + 1) * each)
            scores = queries[:, part] @ keys[:, part].T / each**0.5
            mixed.append(scores.softmax(dim=1) @ values[:, part])
        attended = torch.cat(mixed, dim=1) @ own["attn.project.weight"].T + own["attn.project.bias"]
        hidden = hidden + attended
        calm = F.layer_norm(hidden, [width], own["norm2.weight"], own["norm2.bias"])
        inner = torch.relu(calm @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"])
        return hidden + inner @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]

    def logits(self, prefix: Tensor, captions: list[list[int]]) -> Tensor:
        """Logits [N, V] of the token that follows each of N equally long captions."""
        words = self.gpt2.transformer.wte(torch.tensor(captions, dtype=torch.int64))  # [N, T, E]
        read = torch.cat([prefix.expand(len(captions), -1, -1), words], dim=1)
        return self.gpt2(inputs_embeds=read).logits[:, -1]

    def greedy(self, prefix: Tensor, limit: int) -> list[int]:
        """The likeliest token at each step, up to the stop token or `limit` tokens."""
        tokens: list[int] = []
        while len(tokens) < limit and self.stop not in tokens:
            tokens.append(int(self.logits(prefix, [tokens]).argmax()))
        return tokens

    def beam(self, prefix: Tensor, beams: int, limit: int) -> tuple[list[int], float]:
        """The best of `beams` captions, and the mean log-probability of its tokens."""
        kept: list[tuple[float, list[int]]] = [(0.0, [])]  # sum of log-probabilities, tokens
        for _ in range(limit):
            grown = [beam for beam in kept if self.stop in beam[1]]
            going = [beam for beam in kept if self.stop not in beam[1]]
            steps = self.logits(prefix, [tokens for _, tokens in going]).softmax(-1).log()
            # No more than `beams` are kept, so no more of any one beam.
            best, ids = (each.tolist() for each in steps.topk(beams))
            for (total, tokens), values, words in zip(going, best, ids, strict=True):
                grown += [(total + v, [*tokens, w]) for v, w in zip(values, words, strict=True)]
            grown.sort(key=lambda each: each[0] / len(each[1]), reverse=True)
            kept = grown[:beams]
            if all(self.stop in tokens for _, tokens in kept):
                break
        total, tokens = kept[0]
        return tokens, total / len(tokens)
