"""The exporter of programs: a checkpoint in, `programs/*.pt2` and `captioner.json` out.

Each part of the network is recorded by `torch.export` as one graph, with any number of images and
words. Weights are stored as trained, or in bfloat16, and never packed: that is done when loading,
for the processor or device at hand (see `model.programs.load`).

Axes: B batch, N words, S filled slots of the cache, R rows, E width, V vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from model.artifact import save_ood
from model.checkpoint import Checkpoint
from model.export import MARKS, describe, origin, spelling
from model.layers.packing import replace_linears
from model.network.conversion import build_decoder, plain_vision
from model.network.vision_transformer import VisionTransformer
from model.programs.modules import NarrowLinear, Reading
from model.refusal import Refusal
from model.whole_folder import whole_folder

#: The precisions that a program can hold. What the others need cannot be recorded: weights in fp16
#: are widened by an operator that takes packed weights only, and 8-bit layers round their inputs by
#: operators of the processor.
PRECISIONS = ("fp32", "bf16")


@torch.no_grad()
def export_programs(
    checkpoint_folder: str | Path,
    out: str | Path,
    evaluation: dict[str, Any] | None = None,
    precision: str = "fp32",
) -> None:
    """Write a folder of programs; it replaces an older one when it is complete.

    Args:
        checkpoint_folder: A captioner's checkpoint.
        out: Folder for captioner.json, tokenizer.json and the folder `programs`.
        evaluation: Figures of this checkpoint's evaluation, kept in captioner.json.
        precision: One of `PRECISIONS`. bf16 can be exported on any processor.

    Raises:
        Refusal: The checkpoint is damaged or has no encoder, or another precision.
    """
    if precision not in PRECISIONS:
        raise Refusal(
            f"export.format=programs cannot be exported in {precision}: its operators take weights "
            f"that are packed for a processor, which torch.export cannot record; use "
            f"export.precision={' or '.join(PRECISIONS)}, or export.format=torchscript"
        )
    checkpoint = Checkpoint.load(checkpoint_folder)
    captioner, config = checkpoint.captioner, checkpoint.captioner.config
    if captioner.clip is None:
        raise Refusal(f"{checkpoint_folder} has no CLIP encoder; a server needs one")
    with whole_folder(out, *MARKS) as partial:
        programs = partial / "programs"
        programs.mkdir()
        vision = plain_vision(captioner.clip, config.mapper.feature_kind)
        if precision == "bf16" and isinstance(vision, VisionTransformer):
            patches = vision.patches  # stay in float32: an error here would be in all that follows
            vision.patches = nn.Identity()  # type: ignore[assignment]
            replace_linears(vision, NarrowLinear)
            vision.patches = patches
        side, batch = config.preprocessing.size, {0: Dim("B")}
        _export(programs / "encoder.pt2", vision, (torch.zeros(2, 3, side, side),), (batch,))
        features = torch.zeros(2, *captioner.clip.shape(config.mapper.feature_kind))
        _export(programs / "mapper.pt2", copy.deepcopy(captioner.mapper), (features,), (batch,))

        decoder = build_decoder(captioner.gpt2)
        sizes = {"layers": len(decoder.blocks), "heads": captioner.gpt2.config.n_head}
        _export_output(programs / "output.pt2", decoder.output.head)
        if precision == "bf16":
            replace_linears(decoder.blocks, NarrowLinear)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        _export_reading(programs / "decoder.pt2", Reading(decoder), sizes["heads"], dtype)
        tables = {
            "spelling": spelling(checkpoint).state_dict(),
            "drafts": checkpoint.drafts,
            "quality": checkpoint.quality.head.state_dict() if checkpoint.quality else None,
        }
        torch.save(tables, programs / "tables.pt")
        shutil.copy(Path(checkpoint_folder) / "tokenizer.json", partial)
        ood = checkpoint.ood
        info = {
            **describe(checkpoint, precision),
            "ood": save_ood(ood.score, ood.record, partial) if ood else None,
            "onednn": False,  # nothing is packed
            "normalize_feature": config.normalize_feature,
            "decoder": sizes,
            "programs": {each.name: sha256(each) for each in sorted(programs.iterdir())},
            **origin(checkpoint, checkpoint_folder, evaluation),
        }
        (partial / "captioner.json").write_text(json.dumps(info, indent=2) + "\n")


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def _export_output(file: Path, head: nn.Linear) -> None:
    """Hidden states [R, E] to logits [R, V]; its weight is the token embedding's, too."""
    _export(file, head, (torch.zeros(2, head.in_features),), ({0: Dim("R")},))


def _export_reading(file: Path, reading: Reading, heads: int, dtype: torch.dtype) -> None:
    width = reading.wpe.embedding_dim
    batch, words, slots = Dim("B"), Dim("N"), Dim("S")
    # Sizes that differ from each other, so that none is taken for another one.
    cache = [torch.zeros(3, heads, 7, width // heads, dtype=dtype) for _ in reading.blocks]
    cached = [{0: batch, 2: slots} for _ in cache]
    inputs = (
        torch.zeros(3, 2, width),
        torch.arange(2),
        torch.arange(2),
        torch.zeros(3, 2, 7, dtype=dtype),
        cache,
        [each.clone() for each in cache],
    )
    sizes = ({0: batch, 1: words}, {0: words}, {0: words}, {0: batch, 1: words, 2: slots})
    _export(file, reading, inputs, (*sizes, cached, cached))


def _export(file: Path, module: nn.Module, inputs: tuple[Any, ...], sizes: tuple[Any, ...]) -> None:
    """Record a module and write it.

    Args:
        file: To write.
        module: In any mode; it is set to evaluation.
        inputs: Examples.
        sizes: Of each input, which of its sizes may vary; equal names are equal sizes.
    """
    module = module.eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators that are recorded as they are
        program = torch.export.export(module, inputs, dynamic_shapes=sizes, strict=False)
        torch.export.save(program, file)
