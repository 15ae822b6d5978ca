"""How much sooner one image is captioned when the next tokens are guessed (`model.network.drafts`).

`python -m benchmarks.drafts` captions drawn scenes one at a time, greedily, with drafts and
without, in turns. The captions are those of the captioner that ships, which has learned them; its
decoder has the cost of GPT-2 124M. For that each of its widths is repeated six times, which changes
no result, and layers are added that change nothing. The encoder is ViT-B/32 with random weights. It
prints a table, and writes `drafts.json` into `benchmarks/results/KIND`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.heldout import run_command
from benchmarks.machine import ROOT, command_line, options_parser, results_folder, write_results
from benchmarks.pages import table
from benchmarks.real_size import random_checkpoint
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.decode import open_image
from model.image.preprocessing import to_pixels
from model.layers.precision import PRECISIONS, available
from model.network.captioner import ClipCap
from model.network.conversion import build_search, build_vision
from model.network.drafts import Drafts
from model.network.search import Search
from model.refusal import Refusal
from training.command import command

CHECKPOINT = ROOT / "training" / "pretrained" / "scenes-captioner"
#: GPT-2 124M.
WIDTH, LAYERS, VOCABULARY = 768, 12, 50257


def widened(gpt2: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """A GPT-2 of the size of 124M that writes what a smaller one writes, behind repeated prefixes.

    Its hidden states are those of the smaller one, repeated, so that a layer norm gives the same.
    Tokens that are added have the logit 0.
    """
    small = gpt2.config
    times = WIDTH // small.n_embd
    if times * small.n_embd != WIDTH:
        raise Refusal(f"the captioner is {small.n_embd} wide; {WIDTH} is no multiple of it")
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=small.n_positions,
        n_layer=LAYERS,
        n_head=small.n_head * times,
        bos_token_id=small.eos_token_id,
        eos_token_id=small.eos_token_id,
    )
    large = GPT2LMHeadModel(config).eval()
    weights = large.state_dict()
    for name, value in gpt2.state_dict().items():
        if name == "lm_head.weight":
            continue
        if name.endswith("c_attn.weight") or name.endswith("c_attn.bias"):
            parts = [_repeated(part, times, name) for part in value.chunk(3, dim=-1)]
            weights[name] = torch.cat(parts, dim=-1)
        elif name == "transformer.wte.weight":
            added = torch.zeros(VOCABULARY - len(value), WIDTH)
            weights[name] = torch.cat([_repeated(value, times, name), added])
        else:
            weights[name] = _repeated(value, times, name)
    for name in ("weight", "bias"):  # the output layer adds up all copies
        weights[f"transformer.ln_f.{name}"] /= times
    for layer in range(small.n_layer, LAYERS):  # a layer that adds nothing
        for part in ("attn.c_proj", "mlp.c_proj"):
            for name in ("weight", "bias"):
                weights[f"transformer.h.{layer}.{part}.{name}"].zero_()
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    large.load_state_dict(weights)
    return large


def _repeated(value: Tensor, times: int, name: str) -> Tensor:
    """A weight for repeated inputs and outputs; the inputs of a product share its weight."""
    value = value.repeat(*[1] * (value.ndim - 1), times)
    if value.ndim == 2 and ".h." in name:
        value = value.repeat(times, 1) / times
    return value


class Repeated(nn.Module):
    """The mapper of the smaller captioner, its prefixes repeated."""

    def __init__(self, captioner: ClipCap) -> None:
        super().__init__()
        self.captioner = captioner

    def forward(self, features: Tensor) -> Tensor:
        """Features to prefixes [B, K, WIDTH]."""
        prefix = self.captioner.prefix(features)
        return prefix.repeat(1, 1, WIDTH // prefix.shape[-1])


def scenes(folder: Path, count: int, seed: int) -> list[Path]:
    """Draw scenes of the kind `test`."""
    run_command(
        *("training.prepare", "prepare.source=scenes", f"scenes.seed={seed}"),
        *(f"scenes.count={count}", f"scenes.out={folder}"),
        "scenes.fractions={train: 0.0, val: 0.0, test: 1.0, compositional: 0.0}",
    )
    return sorted((folder / "images").rglob("*.jpg"))


@torch.inference_mode()
def measure(precision: str, prefixes: list[Tensor], own: list[list[int]], rounds: int) -> Any:
    """Milliseconds an image with drafts and without, in turns; and how many steps there were.

    Args:
        precision: One of `model.layers.precision.PRECISIONS`.
        prefixes: Of each image, [1, K, WIDTH].
        own: The captions of the smaller captioner.
        rounds: How often each image is captioned each way.
    """
    checkpoint = Checkpoint.load(CHECKPOINT)
    if checkpoint.drafts is None:
        raise Refusal(f"{CHECKPOINT} has no drafts")
    captioner = checkpoint.captioner
    drafts = Drafts(**checkpoint.drafts, vocabulary=captioner.gpt2.config.vocab_size)
    captioner.gpt2 = widened(captioner.gpt2)
    ways: dict[str, Search] = {
        name: torch.jit.script(build_search(captioner, precision, None, given))
        for name, given in (("without", None), ("with", drafts))
    }
    real = random_checkpoint()
    vision = torch.jit.trace(
        build_vision(real.captioner.clip, "pooled", precision), torch.zeros(1, 3, 224, 224)
    )
    seconds: dict[str, list[float]] = {"encoder": [], **{name: [] for name in ways}}
    differ = 0
    for turn in range(rounds + 1):  # the first one warms up
        for prefix, ids in zip(prefixes, own, strict=True):
            took = {}
            begin = time.perf_counter()
            vision(torch.zeros(1, 3, 224, 224))
            took["encoder"] = time.perf_counter() - begin
            found = {}
            for name, search in ways.items():
                begin = time.perf_counter()
                tokens, _, _, _ = search(prefix, 1, 1, 32, 0, 1.0)
                took[name] = time.perf_counter() - begin
                found[name] = tokens[0, 0].tolist()
            if found["with"] != found["without"]:
                raise Refusal(f"with drafts {found['with']}, without {found['without']}")
            differ += found["with"] != ids
            for name, each in took.items():
                if turn:
                    seconds[name].append(each)
    if differ > len(own) // 10 * (rounds + 1):
        raise Refusal(f"{differ} captions are not those of the smaller captioner")
    milliseconds = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    whole = {name: milliseconds["encoder"] + milliseconds[name] for name in ways}
    return {
        **{name: round(value, 1) for name, value in milliseconds.items()},
        "ratio of the search": round(milliseconds["without"] / milliseconds["with"], 2),
        "ratio of the whole": round(whole["without"] / whole["with"], 2),
        "tokens a caption": round(statistics.mean(map(len, own)), 1),
        "tokens a step": round(_tokens_a_step(drafts, own, captioner.config.end_token_id), 2),
    }


def _tokens_a_step(drafts: Drafts, own: list[list[int]], end: int) -> float:
    """Tokens that a step gives, the first one of a caption left out: it needs none."""
    steps = 0
    for ids in own:
        done = 1
        while done < len(ids):
            nodes, parents = drafts.tree([end, *ids[:done]], len(ids) - done)
            at = -1
            steps, done = steps + 1, done + 1
            while (at := _child(nodes, parents, at, ids[done - 1])) >= 0:
                done += 1
    return sum(len(ids) - 1 for ids in own) / steps


def _child(nodes: list[int], parents: list[int], at: int, token: int) -> int:
    """The node behind another one that holds a token, or -1."""
    pairs = list(zip(nodes, parents, strict=True))
    return pairs.index((token, at)) if (token, at) in pairs else -1


def drafts_section(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands in the page on speed.

    Args:
        measured: Kind of processor -> `drafts.json`.
    """
    lines = [
        "## One image at a time",
        "",
        "For one image, a step takes the time of reading the weights, whether it reads one "
        "token or six. So greedy search of one image guesses what follows, from the n-grams of "
        "the training captions that the checkpoint keeps (`drafts.safetensors`), and the "
        "decoder checks five guesses a step. The tokens are those of plain greedy search. "
        "Measured on captions that a captioner has learned: the default one on drawn scenes, "
        "its decoder brought to the cost of GPT-2 124M by repeating its widths and by layers "
        "that change nothing; the encoder is ViT-B/32. How much it gains depends on how well "
        "n-grams guess: here a step gives {:.1f} tokens.",
        "",
    ]
    columns = {
        "precision": "{precision}",
        "encoder, ms": "{encoder:.0f}",
        "search without, ms": "{without:.0f}",
        "search with drafts, ms": "{with_drafts:.0f}",
        "times as fast": "{whole:.2f}",
    }
    for results in measured.values():
        names = [name for name in PRECISIONS if name in results]
        lines[2] = lines[2].format(results[names[0]]["tokens a step"])
        rows = [
            {
                **results[name],
                "precision": name,
                "with_drafts": results[name]["with"],
                "whole": results[name]["ratio of the whole"],
            }
            for name in names
        ]
        lines += [
            table(columns, rows),
            "",
            f"`{results['command']}`, {results['cores']} cores, {results['processor']}, "
            f"{results['date']}; encoder and search together.",
            "",
        ]
    return "\n".join(lines).rstrip()


def run() -> None:
    """Measure, print a table and write the results."""
    parser = options_parser(__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20261201, help="of the scenes")
    options = parser.parse_args()
    artifact = eager_artifact(Checkpoint.load(CHECKPOINT))
    captioner = Checkpoint.load(CHECKPOINT).captioner
    prefixes, own = [], []
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        for file in scenes(Path(work) / "scenes", options.images, options.seed):
            image = open_image(file.read_bytes(), 10**8, artifact.preprocessing.size).decode()
            features = artifact.encode(to_pixels(image, artifact.preprocessing)[None])
            own += artifact.tokens(features, artifact.defaults.updated({"num_beams": 1}))
            prefixes.append(Repeated(captioner)(features))
    rows = {name: measure(name, prefixes, own, options.rounds) for name in available()}
    shown = Table("precision", *next(iter(rows.values())))
    for name, row in rows.items():
        shown.add_row(name, *map(str, row.values()))
    Console(width=140).print(shown)
    write_results(results_folder() / "drafts.json", command_line("benchmarks.drafts"), rows)


if __name__ == "__main__":
    command(run)
