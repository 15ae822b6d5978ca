"""Which captioner `make serve` serves, and the archive that is made from its checkpoint.

An archive is made again when the checkpoint, the code, the precision or PyTorch has changed since.
It is made without DVC, so that serving needs none of the training packages and never changes
`dvc.lock`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path

from deploy.errors import ServeError
from deploy.modules import output_of_module, run_module
from deploy.properties import ROOT

#: The captioner that `make train` writes.
TRAINED = ROOT / "models" / "clipcap"
#: The captioner that comes with the repository.
SHIPPED = ROOT / "training" / "pretrained" / "scenes-captioner"
#: Files of a checkpoint folder that every captioner has.
_REQUIRED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
#: Files that change what is exported or archived, if a checkpoint has them.
_OPTIONAL = (
    "drafts.safetensors",
    "evaluation.json",
    "ood.json",
    "ood.safetensors",
    "quality.json",
    "quality.safetensors",
    "training.json",
    "training_features.json",
)
#: Code and settings that an archive is made with or contains.
_CODE = ("handler", "model", "training")
_CODE_SUFFIXES = (".py", ".yaml", ".xml")
_CAN_TRAIN = "make train trains one in its place"


@dataclasses.dataclass(frozen=True)
class Captioner:
    """A captioner to serve.

    Attributes:
        checkpoint: Its checkpoint folder.
        precision: What it is exported in (`fp32`, `fp16`, `bf16`, `int8`, `auto`); None for
            `export.precision` of `training/conf/config.yaml`.
        origin: Where it comes from, for the user.
        hub_name: Its name on the Hugging Face hub if it was given by that, or None.
    """

    checkpoint: Path
    precision: str | None = None
    origin: str = "given as CHECKPOINT"
    hub_name: str | None = None

    @classmethod
    def choose(cls, checkpoint: Path | None = None, precision: str | None = None) -> Captioner:
        """The checkpoint given, or else the one trained here, or else the one shipped.

        Args:
            checkpoint: A checkpoint folder, or a name on the Hugging Face hub, or None.
            precision: See the attribute.

        Raises:
            ServeError: The folder given lacks a file of a checkpoint, the name cannot be had, or
                there is none to serve.
        """
        name = str(checkpoint)
        may_be_on_the_hub = re.fullmatch(r"[^/@]+/[^/@]+(@.+)?", name) is not None
        if checkpoint is not None and may_be_on_the_hub and not checkpoint.exists():
            module = "model.pretrained.checkpoint_name"
            found = output_of_module(f"looking for {name}", module, name).strip()
            return cls(Path(found), precision, "from the Hugging Face hub", name)
        if checkpoint is not None:
            if missing := _missing(checkpoint):
                raise ServeError(
                    f"{checkpoint} is no checkpoint: it has no {', no '.join(missing)}"
                )
            return cls(checkpoint, precision)
        if not _missing(TRAINED):
            return cls(TRAINED, precision, "trained here")
        if missing := _missing(SHIPPED):
            raise ServeError(
                f"no captioner was trained here, and {_shown(SHIPPED)}, which comes with the "
                f"repository, has no {', no '.join(missing)}; train one: make train"
            )
        return cls(SHIPPED, precision, f"comes with the repository; {_CAN_TRAIN}")

    @classmethod
    def asked_for(
        cls, checkpoint: Path | None, model: str | None, precision: str | None
    ) -> Captioner:
        """The captioner that the words of a command name; a published one is fetched.

        Args:
            checkpoint: A checkpoint folder, or None.
            model: The name of a published captioner, such as `coco`, or None.
            precision: See the attribute.

        Raises:
            ServeError: Both are given, the model cannot be fetched, or see `choose`.
        """
        if model is not None:
            if checkpoint is not None:
                raise ServeError(f"give MODEL={model} or CHECKPOINT={checkpoint}, not both")
            checkpoint = ROOT / "models" / model
            words = (model, "--out", checkpoint)
            run_module(f"fetching {model}", "model.pretrained.published", *words)
        return cls.choose(checkpoint, precision)

    @property
    def name(self) -> str:
        """The checkpoint as the user writes it, with the precision if one was given."""
        precision = f" in {self.precision}" if self.precision else ""
        return f"{self.hub_name or _shown(self.checkpoint)}{precision}"

    def identity(self) -> dict[str, str]:
        """What an archive is made from: equal identities give equal archives.

        Costs the reading of the whole checkpoint.

        Raises:
            OSError: A file of the checkpoint cannot be read.
        """
        names = [*_REQUIRED, *(n for n in _OPTIONAL if (self.checkpoint / n).is_file())]
        return {
            "name": self.name,
            "checkpoint": str(self.checkpoint.resolve()),
            "checkpoint_sha256": _sha256(self.checkpoint, [self.checkpoint / n for n in names]),
            "code_sha256": _sha256(ROOT, _code()),
            "precision": self.precision or "",
            "torch": importlib.metadata.version("torch"),
        }


def build_archive(captioner: Captioner, artifact: Path, archive: Path) -> dict[str, str]:
    """Export and pack a captioner, unless that was done already.

    Args:
        captioner: The captioner.
        artifact: Folder of the export.
        archive: The `.mar` file. The record of what it was made from is put beside it.

    Returns:
        The identity of what the archive holds now.

    Raises:
        ServeError: The export or the archiving failed.
        OSError: A file cannot be read or written.
    """
    identity = captioner.identity()
    record = archive.with_suffix(".json")
    if archive.is_file() and artifact.is_dir() and _recorded(record) == identity:
        return identity
    record.unlink(missing_ok=True)  # a run that is killed on the way leaves no record
    words = [f"export.precision={captioner.precision}"] if captioner.precision else []
    source = ("--checkpoint", captioner.checkpoint)
    run_module("exporting", "training.export", *source, "--out", artifact, *words)
    archive.parent.mkdir(parents=True, exist_ok=True)
    version = ("--model-version", _version(artifact))
    run_module("archiving", "training.archive", "--artifact", artifact, "--out", archive, *version)
    record.write_text(json.dumps(identity, indent=2) + "\n")
    return identity


def _version(artifact: Path) -> str:
    """A version that tells captioners apart: replies and metrics name it."""
    weights = json.loads((artifact / "captioner.json").read_text())["weights_sha256"]
    return f"1.0-{weights[:8]}"


def _recorded(record: Path) -> object:
    try:
        return json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _missing(checkpoint: Path) -> list[str]:
    return [name for name in _REQUIRED if not (checkpoint / name).is_file()]


def _code() -> list[Path]:
    return sorted(
        file
        for folder in _CODE
        for file in (ROOT / folder).rglob("*")
        if file.suffix in _CODE_SUFFIXES
    )


def _sha256(folder: Path, files: list[Path]) -> str:
    """SHA-256 of the names, relative to the folder, and the contents of files."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def _shown(path: Path) -> str:
    """A path as the user may write it: from here if it lies here."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
