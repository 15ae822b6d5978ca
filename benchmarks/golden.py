"""Compares published weights, as we read and caption with them, with the original ClipCap code.

`python -m benchmarks.golden DIR` takes every `NAME_weights.pt` in DIR, and the answers of the
original code in `NAME_cases.json` and `NAME_cases.safetensors` beside it. It prints one line for
each file. The logits of the first step must agree within 1e-4, and all greedy tokens must be equal.
Our best caption of 5 beams must be at least as likely as the original's, for the same model, in 11
of 12 cases and on average. Equal beams are not asked for, because the original ranks captions of
different lengths by their running mean.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.machine import options_parser
from model.network.captioner import ClipCap
from model.network.conversion import build_search
from model.pretrained.weights_file import read_published
from model.refusal import Refusal

LOGIT_TOLERANCE = 1e-4
#: Logits closer than this may change their order from one processor to another.
TIE = 1e-5
#: The original's mean log-probabilities were computed in float32.
LIKELIHOOD_TOLERANCE = 1e-5


@torch.inference_mode()
def check(weights: Path) -> tuple[bool, str]:
    """Compare one file; returns whether it agrees with the original, and the line to print."""
    name = weights.name.removesuffix("_weights.pt")
    cases = json.loads((weights.parent / f"{name}_cases.json").read_text())
    tensors = load_file(weights.parent / f"{name}_cases.safetensors")
    captioner = read_published(weights, cases["clip_normalize"])
    search = torch.jit.script(build_search(captioner))
    search.end_token_id = cases["stop_token_id"]
    prefix = captioner.prefix(tensors["features"])
    first = captioner.gpt2(inputs_embeds=prefix).logits[:, -1]
    logits = (first - tensors["first_step_logits"]).abs().max().item()

    limit, beams = cases["max_new_tokens"], cases["beam_size"]
    tokens, lengths, _, _ = search(prefix, 1, 1, limit, 0, 1.0)
    greedy = [row[0][: n[0]] for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    differ = [i for i, ours in enumerate(greedy) if ours != cases["greedy"][i]]
    ties = sum(tied(captioner, prefix[i], greedy[i], cases["greedy"][i]) for i in differ)
    equal = len(greedy) - len(differ)

    tokens, lengths, _, _ = search(prefix, beams, 1, limit, 0, 1.0)
    ours = torch.stack(
        [
            mean_log_prob(captioner, prefix[i], row[0, : n[0]])
            for i, (row, n) in enumerate(zip(tokens, lengths, strict=True))
        ]
    )
    theirs = torch.tensor(cases["beam_mean_log_prob"])
    likelier = int((ours >= theirs - LIKELIHOOD_TOLERANCE).sum())
    total = len(greedy)
    passed = (
        logits <= LOGIT_TOLERANCE
        and equal == total
        and likelier * 12 >= total * 11
        and ours.mean() >= theirs.mean()
    )
    line = (
        f"{'ok  ' if passed else 'FAIL'} {name}: logits within {logits:.1e}, "
        f"greedy {equal}/{total} equal{f' and {ties} tied' if ties else ''}, "
        f"beam at least as likely in {likelier}/{total}, "
        f"mean log-probability {ours.mean():.4f} (original {theirs.mean():.4f})"
    )
    return passed, line


def tied(captioner: ClipCap, prefix: Tensor, ours: list[int], theirs: list[int]) -> bool:
    """Whether the first tokens that differ, after a prefix [K, E], have equal logits (`TIE`)."""
    position = next(
        i for i, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) == 2
    )
    words = captioner.gpt2.transformer.wte(torch.tensor(theirs[:position], dtype=torch.int64))
    logits = captioner.gpt2(inputs_embeds=torch.cat([prefix, words])[None]).logits[0, -1]
    return (logits[ours[position]] - logits[theirs[position]]).abs().item() <= TIE


def mean_log_prob(captioner: ClipCap, prefix: Tensor, tokens: Tensor) -> Tensor:
    """Mean log-probability of a caption's tokens [T] after a prefix [K, E], by Hugging Face."""
    words = captioner.gpt2.transformer.wte(tokens[:-1])
    logits = captioner.gpt2(inputs_embeds=torch.cat([prefix, words])[None]).logits[0]
    steps = logits[len(prefix) - 1 :].log_softmax(-1)
    return steps.gather(1, tokens[:, None]).mean()


def main() -> int:
    """Check every file of a folder; the status is 1 if one differs."""
    parser = options_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder with NAME_weights.pt and its cases")
    folder = parser.parse_args().folder
    files = sorted(folder.glob("*_weights.pt"))
    if not files:
        print(f"error: no *_weights.pt in {folder}", file=sys.stderr)
        return 1
    passed = True
    for file in files:
        try:
            agrees, line = check(file)
        except (Refusal, OSError) as error:
            agrees, line = False, f"FAIL {file.name}: {error}"
        print(line)
        passed &= agrees
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
