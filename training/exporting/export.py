"""An export from settings to the artifact folder; `training.export` is the command."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import transformers

from model.artifact import Artifact
from model.checkpoint import WEIGHTS, Checkpoint, read_evaluation
from model.export import MARKS, export_torchscript
from model.layers.precision import PRECISIONS
from model.pretrained.checkpoint_name import checkpoint_folder
from model.programs.export import PRECISIONS as PROGRAM_PRECISIONS
from model.programs.export import export_programs
from model.programs.load import load_artifact
from model.whole_folder import whole_folder
from training.config import Export
from training.evaluation.precision_gate import valid_gates
from training.exporting.comparison import LIKELIHOOD_TOLERANCE, compare
from training.exporting.precision_choice import choose_precision
from training.exporting.sample_pictures import sample_pixels
from training.sources.disk_space import check_space


def export(settings: Export) -> Artifact:
    """Export into a temporary folder, compare, then put it in place.

    Args:
        settings: See `training.config.Export`.

    Returns:
        The artifact, loaded from what was exported.

    Raises:
        Refusal: The precision cannot be used, the artifact differs from the checkpoint, or a
            checkpoint that is given by name cannot be had.
    """
    folder = str(checkpoint_folder(settings.checkpoint))
    settings = dataclasses.replace(settings, checkpoint=folder)
    figures = read_evaluation(settings.checkpoint)
    weights = Path(settings.checkpoint) / WEIGHTS
    # Without weights `Checkpoint.load` names what is missing.
    size = weights.stat().st_size if weights.exists() else 0
    as_programs = settings.format == "programs"
    possible = PROGRAM_PRECISIONS if as_programs else PRECISIONS
    precision = choose_precision(settings.precision, figures, size, possible)
    write = export_programs if as_programs else export_torchscript
    # TorchScript ends the process where a disk is full, so that is checked before.
    check_space({"export.out": (Path(settings.out), size)})
    with whole_folder(settings.out, *MARKS) as trial:
        write(settings.checkpoint, trial, figures, precision)
        artifact = load_artifact(trial)
        pixels, _ = sample_pixels(artifact.preprocessing, settings.data)
        compare(Checkpoint.load(settings.checkpoint), artifact, pixels)
    return artifact


def export_and_report(settings: Export) -> None:
    """Export, and print what was exported, how it was checked, and a sample caption.

    Args:
        settings: See `training.config.Export`.

    Raises:
        Refusal: See `export`.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of its defaults
    begin = time.monotonic()
    artifact = export(settings)
    pixels, source = sample_pixels(artifact.preprocessing, settings.data)
    caption = artifact.caption(artifact.encode(pixels[:1]), artifact.defaults)[0][0].text
    files = [each for each in Path(settings.out).rglob("*") if each.suffix in (".pt", ".pt2")]
    size = sum(each.stat().st_size for each in files) / 1e6
    precision = artifact.info["precision"]
    agreed = (
        f"the same tokens as Hugging Face, greedy and beam, on {source}"
        if precision == "fp32"
        else f"captions within {LIKELIHOOD_TOLERANCE} nats a token of fp32, on {source}"
    )
    print(
        f"{settings.out}: {precision}, {size:.1f} MB in {time.monotonic() - begin:.1f} s; "
        f"{agreed}; a sample: {caption!r}"
    )
    gates = valid_gates(artifact.info["evaluation"])
    if settings.precision == "auto" and not gates:
        print(
            "note: which narrower precision keeps these captions was not measured, so auto "
            "exports the weights as trained; python -m training.evaluate measures it"
        )
    elif precision not in ("fp32", *gates):
        print(
            f"note: how many of the captions {precision} keeps was not measured; "
            "python -m training.evaluate does"
        )
