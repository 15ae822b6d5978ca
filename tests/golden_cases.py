"""Makes the golden cases in `tests/golden`: two tiny random captioners, and what the original says.

    python -m tests.golden_cases tests/golden

`NAME_weights.pt` has the layout of the published files, `NAME_cases.json` and
`NAME_cases.safetensors` hold the answers of `benchmarks.original`; `python -m benchmarks.golden`
reads them. Run it only to change the cases: what is committed is what later versions must
reproduce.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.original import Original
from model.network.mapper import MLPMapper, TransformerMapper

CASES, LIMIT, BEAMS, STOP = 24, 16, 5, 13
#: How much larger the stop token is written than others, so that captions end at all.
ENDING = 3.5
WIDTH, POSITIONS, VOCABULARY, FEATURES = 64, 32, 100, 16
#: As it stands in state dicts of the transformers of 2021.
MASKED = -1e4


def write_weights(folder: Path) -> None:
    """The two weights files."""
    sizes = {
        "mlp": (MLPMapper(FEATURES, WIDTH, 4), 2, 1),
        "transformer": (TransformerMapper(FEATURES, WIDTH, 4, 3, 2, 8), 1, 2),
    }
    for name, (mapper, layers, seed) in sizes.items():
        torch.manual_seed(seed)
        gpt2 = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=POSITIONS,
                n_embd=WIDTH,
                n_layer=layers,
                n_head=1,
                n_inner=WIDTH,
                bos_token_id=STOP,
                eos_token_id=STOP,
            )
        )
        _scatter(gpt2, 0.3)
        with torch.no_grad():
            gpt2.transformer.wte.weight[STOP] *= ENDING
        _scatter(mapper, 0.4)
        weights = {f"gpt.{key}": value for key, value in gpt2.state_dict().items()}
        for layer in range(layers):
            mask = torch.ones(POSITIONS, POSITIONS, dtype=torch.uint8).tril()[None, None]
            weights[f"gpt.transformer.h.{layer}.attn.bias"] = mask
            weights[f"gpt.transformer.h.{layer}.attn.masked_bias"] = torch.tensor(MASKED)
        weights |= {f"clip_project.{key}": value for key, value in mapper.state_dict().items()}
        torch.save(weights, folder / f"{name}_weights.pt")
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(CASES, FEATURES, generator=generator)
        save_file({"features": features}, folder / f"{name}_cases.safetensors")


def _scatter(module: nn.Module, spread: float) -> None:
    """Weights so large that every feature gets a caption of its own."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) * spread


@torch.inference_mode()
def answers(weights: Path, normalize: bool, features: Tensor) -> tuple[dict[str, Any], Tensor]:
    """What the original says to features [N, D]: the cases, and first logits [N, V]."""
    original = Original.read(weights, normalize, STOP)
    prefixes = [original.prefix(feature) for feature in features]
    beams = [original.beam(prefix, BEAMS, LIMIT) for prefix in prefixes]
    cases = {
        "clip_normalize": normalize,
        "stop_token_id": STOP,
        "max_new_tokens": LIMIT,
        "beam_size": BEAMS,
        "greedy": [original.greedy(prefix, LIMIT) for prefix in prefixes],
        "beam": [tokens for tokens, _ in beams],
        "beam_mean_log_prob": [mean for _, mean in beams],
    }
    return cases, torch.stack([original.logits(prefix, [[]])[0] for prefix in prefixes])


def main(folder: Path) -> None:
    """Write weights, features and answers into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder)
    for name in ("mlp", "transformer"):
        file = folder / f"{name}_cases.safetensors"
        features = load_file(file)["features"]
        cases, logits = answers(folder / f"{name}_weights.pt", name == "transformer", features)
        save_file({"features": features, "first_step_logits": logits}, file)
        (folder / f"{name}_cases.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
