"""ClipCap's inference as it was published, written out plainly: the reference for ours.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734, sections 3.1
and 3.3. Where the paper says nothing, this does what their released code does: greedy search, and a
beam search that ranks finished and unfinished captions together at every step, by the mean
log-probability of their tokens. Nothing is cached, so every step reads the whole sequence again.
Nothing of `model/` is used: GPT-2 is Hugging Face's, and the mapper follows the names in the
weights file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

#: Not in the weights file: heads of the transformer mapper, and the width of a head of GPT-2.
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
        gpt2 = {n.removeprefix("gpt."): v for n, v in weights.items() if n.startswith("gpt.")}
        embeddings = gpt2["transformer.wte.weight"]
        config = GPT2Config(
            vocab_size=embeddings.shape[0],
            n_positions=gpt2["transformer.wpe.weight"].shape[0],
            n_embd=embeddings.shape[1],
            n_layer=sum(name.endswith(".ln_1.weight") for name in gpt2),
            n_head=embeddings.shape[1] // GPT2_HEAD_WIDTH,
            n_inner=gpt2["transformer.h.0.mlp.c_fc.weight"].shape[1],
            bos_token_id=stop,
            eos_token_id=stop,
        )
        self.gpt2 = GPT2LMHeadModel(config).eval()
        report = self.gpt2.load_state_dict(gpt2, strict=False, assign=True)
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
        mapper, width = self.mapper, self.gpt2.config.n_embd
        if "prefix_const" not in mapper:
            hidden = torch.tanh(mapper["model.0.weight"] @ feature + mapper["model.0.bias"])
            return (mapper["model.2.weight"] @ hidden + mapper["model.2.bias"]).view(-1, width)
        clip = (mapper["linear.weight"] @ feature + mapper["linear.bias"]).view(-1, width)  # [C, E]
        hidden = torch.cat([clip, mapper["prefix_const"]])  # [C+K, E]
        for layer in range(sum(name.endswith(".norm1.weight") for name in mapper)):
            hidden = self._layer(hidden, f"transformer.layers.{layer}")
        return hidden[len(clip) :]

    def _layer(self, hidden: Tensor, name: str) -> Tensor:
        """A pre-norm transformer layer over [C+K, E], one head after the other."""
        weights = {
            n.removeprefix(f"{name}."): v for n, v in self.mapper.items() if n.startswith(name)
        }
        width = hidden.shape[1]
        head_width = width // MAPPER_HEADS
        normed = F.layer_norm(hidden, [width], weights["norm1.weight"], weights["norm1.bias"])
        queries = normed @ weights["attn.to_queries.weight"].T
        keys, values = (normed @ weights["attn.to_keys_values.weight"].T).split(width, dim=1)
        mixed = []
        for head in range(MAPPER_HEADS):
            part = slice(head * head_width, (head + 1) * head_width)
            scores = queries[:, part] @ keys[:, part].T / head_width**0.5
            mixed.append(scores.softmax(dim=1) @ values[:, part])
        attended = (
            torch.cat(mixed, dim=1) @ weights["attn.project.weight"].T
            + weights["attn.project.bias"]
        )
        hidden = hidden + attended
        normed = F.layer_norm(hidden, [width], weights["norm2.weight"], weights["norm2.bias"])
        inner = torch.relu(normed @ weights["mlp.fc1.weight"].T + weights["mlp.fc1.bias"])
        return hidden + inner @ weights["mlp.fc2.weight"].T + weights["mlp.fc2.bias"]

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
        best: list[tuple[float, list[int]]] = [(0.0, [])]  # sum of log-probabilities, tokens
        for _ in range(limit):
            candidates = [beam for beam in best if self.stop in beam[1]]
            unfinished = [beam for beam in best if self.stop not in beam[1]]
            steps = self.logits(prefix, [tokens for _, tokens in unfinished]).softmax(-1).log()
            # At most `beams` are kept, so at most as many continuations of one caption.
            likeliest, ids = (each.tolist() for each in steps.topk(beams))
            for (total, tokens), values, words in zip(unfinished, likeliest, ids, strict=True):
                candidates += [
                    (total + v, [*tokens, w]) for v, w in zip(values, words, strict=True)
                ]
            candidates.sort(key=lambda each: each[0] / len(each[1]), reverse=True)
            best = candidates[:beams]
            if all(self.stop in tokens for _, tokens in best):
                break
        total, tokens = best[0]
        return tokens, total / len(tokens)
