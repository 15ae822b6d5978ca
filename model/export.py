"""The TorchScript exporter: a checkpoint in, `captioner.pt` and `captioner.json` out.

The encoder and the mapper are traced; the search, which branches, is scripted around the decoder.

torch 2.13 warns that TorchScript is deprecated. `model.programs` exports the same captioner without
it. The code that TorchScript compiles keeps to the part of Python that it accepts:
`model.network.decoder`, `model.network.search`, `model.network.served` and `model.layers`.

Axes: B batch, D CLIP width, E GPT-2 width, K prefix length, S image side, P image patches.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model.artifact import FORMAT, Artifact, save_ood
from model.checkpoint import Checkpoint, weights_sha256
from model.layers.packing import pack_linears
from model.layers.precision import onednn_available
from model.network.conversion import build_search, build_vision
from model.network.drafts import Drafts
from model.network.served import ServedCaptioner
from model.network.spelling import Spelling, spelling_of
from model.options import OPTIONS
from model.refusal import Refusal
from model.whole_folder import whole_folder

#: Files of an older export, of this format or of `model.programs`, in a folder that is replaced.
MARKS = ("captioner.json", "captioner.pt", "programs")


def eager_artifact(checkpoint: Checkpoint, precision: str = "fp32") -> Artifact:
    """The captioner as it will be exported, run eagerly: for evaluation, and as a reference.

    Args:
        checkpoint: The captioner; its modules are copied or shared, never changed.
        precision: One of `model.layers.precision.PRECISIONS`.

    Raises:
        Refusal: The captioner cannot be exported, or not in this precision on this processor.
    """
    module, info = _assemble(checkpoint, precision), describe(checkpoint, precision)
    ood_score = checkpoint.ood.score if checkpoint.ood else None
    return Artifact(module, info, checkpoint.tokenizer, ood_score=ood_score)


@torch.inference_mode()
def export_torchscript(
    checkpoint_folder: str | Path,
    out: str | Path,
    evaluation: dict[str, Any] | None = None,
    precision: str = "fp32",
) -> None:
    """Write an artifact folder; it replaces an older one when it is complete.

    The peak of memory is about three times the size of the weights.

    Args:
        checkpoint_folder: A captioner's checkpoint.
        out: Folder for captioner.pt, captioner.json, tokenizer.json and, if the checkpoint has an
            out-of-distribution score, ood.pt.
        evaluation: Figures of this checkpoint's evaluation, kept in captioner.json.
        precision: One of `model.layers.precision.PRECISIONS`.

    Raises:
        Refusal: The checkpoint is damaged, has no encoder, or cannot be exported in this
            precision on this processor.
    """
    checkpoint = Checkpoint.load(checkpoint_folder)
    config = checkpoint.captioner.config
    clip = checkpoint.captioner.clip
    if clip is None:
        raise Refusal(f"{checkpoint_folder} has no CLIP encoder; a server needs one")
    # Otherwise a caller without `no_grad` would pay for gradients that have no use.
    module = _assemble(checkpoint, precision).requires_grad_(False)
    side = config.preprocessing.size
    features = torch.zeros(2, *clip.shape(config.mapper.feature_kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        module.encoder = torch.jit.trace(module.encoder, torch.zeros(2, 3, side, side))
        module.mapper = torch.jit.trace(module.mapper, features)
        scripted = torch.jit.script(module)
    with whole_folder(out, *MARKS) as partial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted.save(str(partial / "captioner.pt"))
        shutil.copy(Path(checkpoint_folder) / "tokenizer.json", partial)
        with (partial / "captioner.pt").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        ood = checkpoint.ood
        info = {
            **describe(checkpoint, precision),
            "ood": save_ood(ood.score, ood.record, partial) if ood else None,
            "sha256": digest,
            **origin(checkpoint, checkpoint_folder, evaluation),
        }
        (partial / "captioner.json").write_text(json.dumps(info, indent=2) + "\n")


def _assemble(checkpoint: Checkpoint, precision: str) -> ServedCaptioner:
    """Encoder, mapper and search in one module, not yet traced or scripted."""
    captioner, config = checkpoint.captioner, checkpoint.captioner.config
    encoder = build_vision(captioner.clip, config.mapper.feature_kind, precision)
    mapper = copy.deepcopy(captioner.mapper)
    # It runs once an image and its output is read at every step: accuracy matters, time does not.
    pack_linears(mapper, "fp16" if precision == "fp16" else "fp32")
    drafts = None
    if checkpoint.drafts is not None:
        drafts = Drafts(**checkpoint.drafts, vocabulary=captioner.gpt2.config.vocab_size)
    quality = checkpoint.quality.head if checkpoint.quality else None
    search = build_search(captioner, precision, spelling(checkpoint), drafts, quality)
    return ServedCaptioner(encoder, mapper, search, config.normalize_feature).eval()


def spelling(checkpoint: Checkpoint) -> Spelling:
    """What the tokens of a captioner add to a text."""
    config = checkpoint.captioner.config
    vocabulary = checkpoint.captioner.gpt2.config.vocab_size
    return spelling_of(
        checkpoint.tokenizer, vocabulary, config.end_token_id, config.end_token_is_text
    )


def origin(
    checkpoint: Checkpoint, folder: str | Path, evaluation: dict[str, Any] | None
) -> dict[str, Any]:
    """The fields of captioner.json that say where the exported file comes from.

    Args:
        checkpoint: The captioner.
        folder: Its folder.
        evaluation: Figures of its evaluation.
    """
    return {
        "weights_sha256": weights_sha256(folder),
        "evaluation": evaluation,
        "training_features": checkpoint.training_features,
        "versions": {"torch": torch.__version__, "transformers": version("transformers")},
    }


def describe(checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """The fields of captioner.json that do not depend on the exported file."""
    captioner, config = checkpoint.captioner, checkpoint.captioner.config
    room = captioner.gpt2.config.n_positions - config.mapper.prefix_length
    return {
        "format": FORMAT,
        "precision": precision,
        "onednn": onednn_available(),
        "preprocessing": config.preprocessing.to_dict(),
        "feature_width": config.feature_width,
        "prefix_length": config.mapper.prefix_length,
        "positions": captioner.gpt2.config.n_positions,
        "vocabulary": captioner.gpt2.config.vocab_size,
        "end_token_id": config.end_token_id,
        "end_token_is_text": config.end_token_is_text,
        "max_tokens": int(min(room, OPTIONS["max_tokens"].high)),
        "generation": checkpoint.generation.to_dict(),
        "quality": checkpoint.quality.record if checkpoint.quality else None,
    }
