"""Export a checkpoint as one TorchScript file, and prove that it says the same.

`python -m training.export [--checkpoint DIR] [--out DIR]` writes `captioner.pt`, `captioner.json`
and `tokenizer.json`, loads them again, and captions sample pictures with them and with the
Hugging Face modules they came from. The export is put in place only if both agree.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import WEIGHTS, Checkpoint, read_evaluation
from model.export import eager_artifact, export_torchscript
from model.image.preprocessing import to_pixels
from model.layers.precision import PRECISIONS, unsupported_reason
from model.options import GenerationOptions
from model.refusal import Refusal
from model.whole_folder import whole_folder
from training.command import arguments, command
from training.config import Export, load_config
from training.evaluation.precision_gate import CIDER_CHANGE, SAME, valid_gates
from training.scenes import draw_scene, sample_scene
from training.sources.disk_space import check_space

#: Pictures that both sides caption.
SAMPLES = 8
#: Largest difference of a feature's elements, relative to the largest element above 1.
FEATURE_TOLERANCE = 1e-4
#: Change of a caption's log-probability by a narrower precision, nats a token.
LIKELIHOOD_TOLERANCE = 0.02
#: How many times as fast as float32 a narrower precision must be to be chosen by `auto`.
WORTH = 1.2


def export(settings: Export) -> Artifact:
    """Export aside, compare, then put in place.

    Raises:
        Refusal: The exported file does not say what the checkpoint says.
    """
    figures = read_evaluation(settings.checkpoint)
    precision = choose_precision(settings.precision, figures)
    weights = Path(settings.checkpoint) / WEIGHTS
    if weights.exists():  # TorchScript ends the process where a disk is full
        check_space({"export.out": (Path(settings.out), weights.stat().st_size)})
    with whole_folder(settings.out, "captioner.json", "captioner.pt") as trial:
        export_torchscript(settings.checkpoint, trial, figures, precision)
        artifact = Artifact.load(trial)
        compare(Checkpoint.load(settings.checkpoint), artifact)
    return artifact


def choose_precision(wanted: str, figures: Mapping[str, Any] | None) -> str:
    """The precision to export in.

    `auto` takes the fastest that passed its gate when these weights were evaluated (see
    `training.evaluation.precision_gate`), by the times measured there; float32 unless another
    gains.

    Args:
        wanted: `auto` or a precision.
        figures: The evaluation of these weights, or None.

    Raises:
        Refusal: A precision that there is not, that did not pass, or that this processor has not.
    """
    if wanted not in ("auto", *PRECISIONS):
        raise Refusal(f"export.precision is {wanted!r}; it must be auto, {', '.join(PRECISIONS)}")
    measured = valid_gates(figures)
    if wanted == "auto":
        passed = {k: v for k, v in measured.items() if v["passes"] and not unsupported_reason(k)}
        fastest = min(passed, key=lambda name: passed[name]["seconds"], default="fp32")
        gain = passed[fastest]["seconds"] * WORTH <= passed["fp32"]["seconds"] if passed else False
        return fastest if gain else "fp32"
    if wanted in measured and not measured[wanted]["passes"]:
        own = measured[wanted]
        raise Refusal(
            f"export.precision={wanted} did not pass its gate: {own['same']:.1%} of the captions "
            f"stay the same (at least {SAME:.0%}), CIDEr changes by {own['cider_change']:+.2%} (at "
            f"most {CIDER_CHANGE:.0%}); use export.precision=auto"
        )
    if reason := unsupported_reason(wanted):
        raise Refusal(f"export.precision={wanted} cannot be used here: {reason}; use auto")
    return wanted


@torch.inference_mode()
def compare(checkpoint: Checkpoint, artifact: Artifact) -> None:
    """Refuse an artifact that differs from its checkpoint in features, greedy or beam tokens.

    One in a narrower precision must say the same alone as in a batch, and find what the checkpoint
    says about as likely.

    Args:
        checkpoint: Where it came from: encoder and GPT-2 run as Hugging Face's modules.
        artifact: What was exported.
    """
    captioner = checkpoint.captioner
    pixels = sample_pixels(artifact)
    expected = captioner.encode(pixels)
    features = artifact.encode(pixels)
    exact = artifact.info["precision"] == "fp32"
    error = (features - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    if exact and not error <= FEATURE_TOLERANCE:
        raise Refusal(
            f"the exported encoder differs by {error:.1e} from the checkpoint's; "
            f"the limit is {FEATURE_TOLERANCE:.0e}; this export cannot be used"
        )
    if not exact:
        _compare_likelihood(checkpoint, artifact, expected, features)
    for num_beams in (1, checkpoint.generation.num_beams):
        options = dataclasses.replace(checkpoint.generation, num_beams=num_beams, num_captions=1)
        together = artifact.tokens(features, options)
        reference = hugging_face_tokens(checkpoint, expected, options) if exact else together
        said_by = "Hugging Face's generate" if exact else "those in a batch"
        alone = [artifact.tokens(row[None], options)[0] for row in features]
        for name, got in (("in a batch", together), ("alone", alone)):
            wrong = [i for i in range(SAMPLES) if got[i] != reference[i]]
            if wrong:
                raise Refusal(
                    f"with {num_beams} beams, {len(wrong)} of {SAMPLES} sample pictures captioned "
                    f"{name} differ from {said_by}: first {got[wrong[0]]}, expected "
                    f"{reference[wrong[0]]}; this export cannot be used"
                )


def _compare_likelihood(
    checkpoint: Checkpoint, artifact: Artifact, expected: Tensor, features: Tensor
) -> None:
    """Refuse an artifact that finds the checkpoint's greedy captions less or more likely."""
    options = dataclasses.replace(checkpoint.generation, num_beams=1, num_captions=1)
    exact = eager_artifact(checkpoint)
    worst = 0.0
    for ids, feature, other in zip(
        hugging_face_tokens(checkpoint, expected, options), expected, features, strict=True
    ):
        tokens = torch.tensor([ids])
        change = artifact.score(other[None], tokens) - exact.score(feature[None], tokens)
        worst = max(worst, abs(change.mean().item()))
    if not worst <= LIKELIHOOD_TOLERANCE:
        raise Refusal(
            f"in {artifact.info['precision']} the log-probability of a caption changes by "
            f"{worst:.3f} nats a token; the limit is {LIKELIHOOD_TOLERANCE}; export with "
            "export.precision=fp32"
        )


def sample_pixels(artifact: Artifact) -> Tensor:
    """Pixels [SAMPLES, 3, S, S] of drawn scenes."""
    rng = random.Random(0)
    pictures = (draw_scene(sample_scene(rng, "test"), 320, 280) for _ in range(SAMPLES))
    return torch.stack([to_pixels(picture, artifact.preprocessing) for picture in pictures])


def hugging_face_tokens(
    checkpoint: Checkpoint, features: Tensor, options: GenerationOptions
) -> list[list[int]]:
    """What Hugging Face's `generate` writes from the prefix, one picture at a time."""
    captioner = checkpoint.captioner
    end = captioner.config.end_token_id
    lines = []
    for feature in features:
        prefix = captioner.prefix(feature[None])
        ids = captioner.gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            do_sample=False,
            num_beams=options.num_beams,
            max_new_tokens=options.max_tokens,
            min_new_tokens=options.min_tokens or None,
            length_penalty=options.length_penalty if options.num_beams > 1 else None,
            eos_token_id=end,
            pad_token_id=end,
        )[0].tolist()
        lines.append(ids[: ids.index(end) + 1] if end in ids else ids)
    return lines


def main() -> None:
    """Export with the settings of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", help="export.checkpoint: checkpoint folder")
    parser.add_argument("--out", help="export.out: artifact folder")
    options = parser.parse_args()
    settings = load_config(options.overrides).export
    given = {name: getattr(options, name) for name in ("checkpoint", "out")}
    settings = dataclasses.replace(settings, **{k: v for k, v in given.items() if v is not None})
    transformers.logging.set_verbosity_error()  # it warns of its own defaults
    begin = time.monotonic()
    artifact = export(settings)
    rows = [
        caption[0].text
        for caption in artifact.caption(
            artifact.encode(sample_pixels(artifact)[:1]), artifact.defaults
        )
    ]
    size = (Path(settings.out) / "captioner.pt").stat().st_size / 1e6
    precision = artifact.info["precision"]
    held = (
        f"the same tokens as Hugging Face on {SAMPLES} pictures, greedy and beam"
        if precision == "fp32"
        else f"captions of {SAMPLES} pictures within {LIKELIHOOD_TOLERANCE} nats a token of fp32"
    )
    print(
        f"{settings.out}: {precision}, {size:.1f} MB in {time.monotonic() - begin:.1f} s; {held}; "
        f"a sample: {rows[0]!r}"
    )
    gates = valid_gates(artifact.info["evaluation"])
    if settings.precision == "auto" and not gates:
        print(
            "note: which narrower precision keeps these captions was not measured, so auto "
            "exports the weights as trained; after python -m training.evaluate it takes the fastest"
        )
    elif precision not in ("fp32", *gates):
        print(
            f"note: how many of the captions {precision} keeps was not measured; "
            "python -m training.evaluate does"
        )


if __name__ == "__main__":
    command(main)
