"""Comparison of an exported captioner with the checkpoint that it was made from."""

from __future__ import annotations

import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.options import DRAW, OPTIONS, GenerationOptions
from model.refusal import Refusal

#: Largest difference of a feature's elements, relative to the largest element above 1.
FEATURE_TOLERANCE = 1e-4
#: Change of a caption's log-probability by a narrower precision, nats a token.
LIKELIHOOD_TOLERANCE = 0.02


@torch.inference_mode()
def compare(checkpoint: Checkpoint, artifact: Artifact, pixels: Tensor) -> None:
    """Refuse an artifact that differs from its checkpoint in features, greedy or beam tokens.

    In a narrower precision the tokens may differ from the checkpoint's. Such an artifact must give
    the same tokens alone as in a batch, and the checkpoint's captions must be about as likely.

    Args:
        checkpoint: The checkpoint; its encoder and GPT-2 run as Hugging Face's modules.
        artifact: The exported captioner.
        pixels: Pixels of sample pictures, [N, 3, S, S].

    Raises:
        Refusal: They differ by more than the tolerances above.
    """
    captioner = checkpoint.captioner
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
        options = _search_options(checkpoint, num_beams)
        together = artifact.tokens(features, options)
        reference = hugging_face_tokens(checkpoint, expected, options) if exact else together
        source = "Hugging Face's generate" if exact else "those in a batch"
        alone = [artifact.tokens(row[None], options)[0] for row in features]
        for name, got in (("in a batch", together), ("alone", alone)):
            wrong = [i for i in range(len(pixels)) if got[i] != reference[i]]
            if wrong:
                raise Refusal(
                    f"with {num_beams} beams, {len(wrong)} of {len(pixels)} sample pictures "
                    f"captioned {name} differ from {source}: first {got[wrong[0]]}, expected "
                    f"{reference[wrong[0]]}; this export cannot be used"
                )


def _compare_likelihood(
    checkpoint: Checkpoint, artifact: Artifact, expected: Tensor, features: Tensor
) -> None:
    """Refuse an artifact in which the checkpoint's greedy captions are less or more likely."""
    options = _search_options(checkpoint, 1)
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


def _search_options(checkpoint: Checkpoint, num_beams: int) -> GenerationOptions:
    """The captioner's own options with this width of the search, and without a draw."""
    draw = {name: OPTIONS[name].default for name in ("temperature", *DRAW)}
    values = {**checkpoint.generation.to_dict(), **draw, "num_beams": num_beams, "num_captions": 1}
    return GenerationOptions(**values)


def hugging_face_tokens(
    checkpoint: Checkpoint, features: Tensor, options: GenerationOptions
) -> list[list[int]]:
    """Tokens of Hugging Face's `generate` from the prefix, one picture at a time.

    Args:
        checkpoint: The captioner.
        features: Features [N, D] or [N, P, D].
        options: How captions are searched for.

    Returns:
        Token ids of each picture, up to and with the end token.
    """
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
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            eos_token_id=end,
            pad_token_id=end,
        )[0].tolist()
        lines.append(ids[: ids.index(end) + 1] if end in ids else ids)
    return lines
