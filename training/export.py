"""Export a checkpoint as one TorchScript file, and prove that it says the same.

`python -m training.export [--checkpoint DIR] [--out DIR]` writes `captioner.pt`, `captioner.json`
and `tokenizer.json`, loads them again, and captions sample pictures with them and with the
Hugging Face modules they came from. The export is put in place only if both agree.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.image import to_pixels
from model.options import GenerationOptions
from model.refusal import Refusal
from model.torchscript import export_torchscript
from model.whole_folder import whole_folder
from training.command import arguments, command
from training.config import Export, load_config
from training.scenes import draw_scene, sample_scene

#: Pictures that both sides caption.
SAMPLES = 8
#: Largest difference of a feature's elements, relative to the largest element above 1.
FEATURE_TOLERANCE = 1e-4


def export(settings: Export) -> Artifact:
    """Export aside, compare, then put in place.

    Raises:
        Refusal: The exported file does not say what the checkpoint says.
    """
    with whole_folder(settings.out) as trial:
        export_torchscript(settings.checkpoint, trial, _evaluation(settings))
        artifact = Artifact.load(trial)
        compare(Checkpoint.load(settings.checkpoint), artifact)
    return artifact


@torch.inference_mode()
def compare(checkpoint: Checkpoint, artifact: Artifact) -> None:
    """Refuse an artifact that differs from its checkpoint in features, greedy or beam tokens.

    Args:
        checkpoint: Where it came from: encoder and GPT-2 run as Hugging Face's modules.
        artifact: What was exported.
    """
    captioner = checkpoint.captioner
    pixels = sample_pixels(artifact)
    expected = captioner.encode(pixels)
    features = artifact.encode(pixels)
    error = (features - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    if not error <= FEATURE_TOLERANCE:
        raise Refusal(
            f"the exported encoder differs by {error:.1e} from the checkpoint's; "
            f"the limit is {FEATURE_TOLERANCE:.0e}; this export cannot be used"
        )
    for num_beams in (1, checkpoint.generation.num_beams):
        options = dataclasses.replace(checkpoint.generation, num_beams=num_beams, num_captions=1)
        reference = hugging_face_tokens(checkpoint, expected, options)
        together = exported_tokens(artifact, features, options)
        alone = [exported_tokens(artifact, row[None], options)[0] for row in features]
        for name, got in (("in a batch", together), ("alone", alone)):
            wrong = [i for i in range(SAMPLES) if got[i] != reference[i]]
            if wrong:
                raise Refusal(
                    f"with {num_beams} beams, {len(wrong)} of {SAMPLES} sample pictures captioned "
                    f"{name} differ from Hugging Face's generate: first {got[wrong[0]]}, expected "
                    f"{reference[wrong[0]]}; this export cannot be used"
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


def exported_tokens(
    artifact: Artifact, features: Tensor, options: GenerationOptions
) -> list[list[int]]:
    """What the artifact writes, as token ids up to the end token."""
    tokens, lengths, _ = artifact.module.caption(
        features,
        options.num_beams,
        1,
        options.max_tokens,
        options.min_tokens,
        options.length_penalty,
    )
    return [
        ids[0][: length[0]] for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


def _evaluation(settings: Export) -> dict[str, Any] | None:
    """The evaluation's figures, if they are about these very weights."""
    file = Path(settings.metrics)
    if not file.exists():
        return None
    try:
        figures = json.loads(file.read_text())
    except ValueError as error:
        raise Refusal(f"{file} is not JSON: {error}; evaluate again") from None
    same = figures.get("weights_sha256") == weights_sha256(settings.checkpoint)
    return figures if same else None


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
    print(
        f"{settings.out}: {size:.1f} MB in {time.monotonic() - begin:.1f} s; the same tokens as "
        f"Hugging Face on {SAMPLES} pictures, greedy and beam; a sample: {rows[0]!r}"
    )


if __name__ == "__main__":
    command(main)
