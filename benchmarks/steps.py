"""A training step of the captioner in float32 and in bf16-mixed, and what deterministic costs.

    python -m benchmarks.steps [--steps 40] [--only default]

Random captions and features; forward pass, backward pass and AdamW. The ways take turns in one
process with one thread. The time is the processor time of the process, so that other programs on
the machine hardly change it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from benchmarks.pages import table
from model.config import CaptionerConfig, MapperConfig
from model.image.preprocessing import Preprocessing
from model.network.captioner import ClipCap

#: Name -> layers, width, heads, vocabulary; mapper; images, captions and tokens of a batch.
MODELS: dict[str, tuple[tuple[int, int, int, int], MapperConfig, tuple[int, int, int]]] = {
    "default": ((2, 128, 2, 1000), MapperConfig("patch", 64), (26, 128, 24)),
    "256": ((4, 256, 4, 1000), MapperConfig("patch", 64), (26, 128, 24)),
    "384": ((6, 384, 6, 1000), MapperConfig("patch", 64), (26, 128, 24)),
    "gpt2": ((12, 768, 12, 50257), MapperConfig("mlp", 10), (8, 8, 14)),
}
#: Name -> whether it is bf16-mixed, whether it is deterministic.
WAYS = {
    "float32": (False, True),
    "bf16-mixed": (True, True),
    "float32, deterministic=false": (False, False),
}
FEATURE_WIDTH = 160


def captioner(name: str) -> ClipCap:
    """A captioner with random weights, in training mode."""
    (layers, width, heads, vocabulary), mapper, _ = MODELS[name]
    gpt2 = {"n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": vocabulary}
    gpt2 |= {"n_positions": 192, "bos_token_id": 0, "eos_token_id": 0}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return ClipCap(
        CaptionerConfig(
            clip=None,
            gpt2={**gpt2, **dropout},
            mapper=mapper,
            preprocessing=Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            feature_width=FEATURE_WIDTH,
            normalize_feature=False,
            end_token_id=0,
        )
    ).train()


def measure(name: str, steps: int) -> dict[str, Any]:
    """Median processor seconds of a step in each way, after two steps of each that do not count."""
    torch.manual_seed(1)
    model = captioner(name)
    _, mapper, (images, captions, tokens) = MODELS[name]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    patches = (mapper.prefix_length,) if mapper.kind == "patch" else ()
    features = torch.randn(images, *patches, FEATURE_WIDTH)
    labels = torch.randint(1, model.gpt2.config.vocab_size, (captions, tokens))
    owners = torch.arange(captions) * images // captions
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(steps + 2):
        for way, (narrow, deterministic) in WAYS.items():
            torch.use_deterministic_algorithms(deterministic)
            begin = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                loss = model(features, labels, owners=owners)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds[way].append(time.process_time() - begin)
    torch.use_deterministic_algorithms(False)
    medians = {way: statistics.median(each[2:]) for way, each in seconds.items()}
    return {"model": name, **medians}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", choices=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [
        measure(name, options.steps) for name in ([options.only] if options.only else MODELS)
    ]
    columns = {"model": "{model}", **{way: f"{{{way}:.3f}} s" for way in WAYS}}
    print(table(columns, results))


if __name__ == "__main__":
    main()
