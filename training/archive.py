"""Packs an exported captioner with its handler into the archive that TorchServe serves.

    python -m training.archive [--artifact build/artifact] [--out model_store/clipcap.mar]

The archive holds the artifact, the handler and those modules of `model/` that the handler imports.
It is reproducible: the same inputs give the same bytes. Before it replaces an older one, it is
unpacked in another folder, and captions an image there through TorchServe's own loader.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from model.refusal import Refusal
from model.whole_folder import working_folder
from training.command import arguments, command
from training.config import load_config

ROOT = Path(__file__).resolve().parent.parent
ARTIFACT_FILES = ("captioner.pt", "captioner.json", "tokenizer.json")
#: A file of an artifact whose captioner has an out-of-distribution score.
OPTIONAL_FILES = ("ood.pt",)
ENTRY = "handler/caption_handler.py"
#: Packages of ours that may be in the archive.
PACKED = ("model", "handler")
_MANIFEST = "MAR-INF/MANIFEST.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip entry can have


def archive(artifact: Path, out: Path, name: str = "clipcap", version: str = "1.0") -> str:
    """Pack an archive and try it; it replaces an older one if it works.

    Args:
        artifact: Folder with `captioner.pt`, `captioner.json` and `tokenizer.json`, and `ood.pt` if
            the captioner has an out-of-distribution score.
        out: The `.mar` file to write.
        name: The model's name in the archive.
        version: The model's version in the archive.

    Returns:
        The caption that the unpacked archive gave for a plain grey image.

    Raises:
        Refusal: The artifact is incomplete, the packed archive does not work, or another process is
            packing the same archive.
    """
    if (artifact / "programs").is_dir():
        raise Refusal(
            f"{artifact} holds programs of torch.export, and an archive needs captioner.pt; export "
            "the captioner with export.format=torchscript"
        )
    missing = [file for file in ARTIFACT_FILES if not (artifact / file).is_file()]
    if missing:
        raise Refusal(
            f"{artifact} has no {' and no '.join(missing)}; "
            "export a captioner first: python -m training.export"
        )
    if out.is_dir():
        raise Refusal(f"{out} is a folder; give the .mar file that is to be written")
    with working_folder(out.absolute().with_name(out.name + ".partial")) as folder:
        packed = _pack(artifact, folder, name, version)
        rewritten = folder / "rewritten.mar"
        _rewrite(packed, rewritten)
        caption = _try_out(rewritten, folder / "unpacked")
        rewritten.replace(out)
    return caption


def serving_modules() -> list[Path]:
    """Files of `PACKED` that the handler imports, directly or not; relative to the repository."""
    found: set[Path] = set()
    pending = [Path(ENTRY)]
    while pending:
        file = pending.pop()
        if file in found:
            continue
        found.add(file)
        pending += [init for init in [file.parent / "__init__.py"] if (ROOT / init).is_file()]
        pending += _imports(ROOT / file)
    return sorted(found)


def _imports(file: Path) -> Iterator[Path]:
    """Modules of `PACKED` that a file imports, as paths."""
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = Path(*name.split("."))
            if path.parts[0] in PACKED:
                candidates = (path.with_suffix(".py"), path / "__init__.py")
                yield from (each for each in candidates if (ROOT / each).is_file())


def _pack(artifact: Path, folder: Path, name: str, version: str) -> Path:
    """Let torch-model-archiver build the archive from a staging folder."""
    staging = folder / "staging"
    for file in [*serving_modules(), Path("handler/metrics.yaml")]:
        if file == Path(ENTRY):
            continue  # the archiver puts it at the top, where TorchServe looks for it
        (staging / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, staging / file)
    optional = [part for part in OPTIONAL_FILES if (artifact / part).is_file()]
    for part in (*ARTIFACT_FILES[1:], *optional):
        shutil.copyfile(artifact / part, staging / part)
    scratch = folder / "scratch"  # the archiver deletes $TMPDIR/<model name>
    scratch.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", name, "--version", version, "--export-path", folder, "--force"),
            *("--archive-format", "zip-store"),  # compression takes minutes and saves nothing
            *("--serialized-file", artifact / ARTIFACT_FILES[0], "--extra-files", staging),
            *("--handler", ROOT / ENTRY, "--config-file", ROOT / "handler/model-config.yaml"),
        ],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    packed = folder / f"{name}.mar"
    if done.returncode or not packed.is_file():
        raise Refusal(f"torch-model-archiver failed: {_last_line(done.stderr or done.stdout)}")
    return packed


def _rewrite(packed: Path, out: Path) -> None:
    """Write the same archive with sorted entries and without times, so that it is reproducible."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(out, "w") as target:
        for name in sorted(each for each in source.namelist() if not each.endswith("/")):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            if name == _MANIFEST:
                manifest = json.loads(source.read(name))
                manifest["createdOn"] = "01/01/1980 00:00:00"
                target.writestr(entry, json.dumps(manifest, indent=2, sort_keys=True))
                continue
            with source.open(name) as reader, target.open(entry, "w", force_zip64=True) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


def _try_out(packed: Path, folder: Path) -> str:
    """Unpack an archive and caption an image in a process that can import no other code of ours."""
    with zipfile.ZipFile(packed) as source:
        source.extractall(folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", Path(__file__).with_name("try_archive.py"), folder],
        cwd=folder,
        # Waiting threads sleep and leave the cores to other programs.
        env={"OMP_WAIT_POLICY": "PASSIVE", **environment, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refusal(f"the packed archive does not work: {_last_line(done.stderr)}")
    return (done.stdout.splitlines() or [""])[-1]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _sha256(file: Path) -> str:
    with file.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def main() -> None:
    """Pack the archive and print its size, hash and a caption."""
    parser = arguments(__doc__)
    parser.add_argument("--artifact", help="export.out: artifact folder")
    parser.add_argument("--out", help="archive.out: the .mar file to write")
    parser.add_argument("--model-name", default="clipcap")
    parser.add_argument("--model-version", default="1.0")
    given = parser.parse_args()
    config = load_config(given.overrides)
    out = Path(given.out or config.archive.out)
    artifact = Path(given.artifact or config.export.out)
    caption = archive(artifact, out, given.model_name, given.model_version)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {_sha256(out)}")
    print(f"unpacked elsewhere, it captions a plain grey picture: {caption}")


if __name__ == "__main__":
    command(main)
