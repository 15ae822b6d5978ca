"""The archive that a container serves: chosen, and checked before TorchServe starts.

    python -m deploy.container.archive FILE      exit status 1 and one line if FILE is no archive

TorchServe itself starts a worker that cannot load its archive again and again.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import zipfile
from pathlib import Path

from deploy.errors import ServeError
from deploy.properties import ROOT

#: The captioner in the image.
BUILT_IN = ROOT / "model_store" / "clipcap.mar"
#: Where a captioner is mounted that is served in its place.
MOUNTED = Path("/models")
_MANIFEST = "MAR-INF/MANIFEST.json"
_CAPTIONER = "captioner.json"
#: Files that the captioner's handler loads.
_FILES = ("captioner.pt", _CAPTIONER, "tokenizer.json")
#: One that it loads too where the captioner's description has the field `ood`.
_OOD = "ood.pt"


def choose_archive(mounted: Path = MOUNTED, built_in: Path = BUILT_IN) -> Path:
    """The one archive in the mounted folder, or the built-in one if that folder is empty.

    Args:
        mounted: A folder; it need not exist. Hidden files and `lost+found` do not count: volumes
            have them.
        built_in: The archive of the image.

    Raises:
        ServeError: The folder cannot be read, or holds files but not exactly one archive.
    """
    try:
        found = [each.name for each in mounted.iterdir()] if mounted.is_dir() else []
    except OSError as error:
        raise ServeError(
            f"{mounted} cannot be read by user {os.getuid()}: {error.strerror}"
        ) from None
    files = sorted(name for name in found if not name.startswith(".") and name != "lost+found")
    if not files:
        return built_in
    archives = [name for name in files if name.endswith(".mar")]
    if len(archives) != 1:
        raise ServeError(
            f"{mounted} holds {len(archives)} archives (.mar) among {', '.join(files)[:200]}; it "
            "must hold one, or nothing for the captioner of the image"
        )
    return mounted / archives[0]


def check_archive(file: Path) -> None:
    """Read a whole archive and refuse what a worker here could not load.

    Args:
        file: A `.mar` file.

    Raises:
        ServeError: It cannot be read, is damaged, is no archive of a captioner, or was exported
            with another version of torch.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise ServeError(
                    f"{file} is damaged: {damaged} has a wrong checksum; copy it again"
                )
            names = set(archive.namelist())
            if missing := [name for name in (_MANIFEST, *_FILES) if name not in names]:
                raise ServeError(
                    f"{file} is no archive of a captioner: it has no {' and no '.join(missing)}; "
                    "python -m training.archive makes one"
                )
            handler = json.loads(archive.read(_MANIFEST))["model"]["handler"]
            captioner = json.loads(archive.read(_CAPTIONER))
            exported_with = captioner["versions"]["torch"]
            if captioner.get("ood") and _OOD not in names:
                raise ServeError(
                    f"{file} is no whole archive of a captioner: it has no {_OOD}; python -m "
                    "training.archive makes one"
                )
    except OSError as error:
        raise ServeError(f"{file} cannot be read by user {os.getuid()}: {error.strerror}") from None
    except (zipfile.BadZipFile, EOFError):
        raise ServeError(
            f"{file} is no archive: not a whole zip file; python -m training.archive makes one"
        ) from None
    except (ValueError, LookupError, TypeError) as error:
        raise ServeError(
            f"{file} is no archive of a captioner: {_MANIFEST} or {_CAPTIONER} cannot be read: "
            f"{type(error).__name__} {error}"
        ) from None
    if handler not in names:
        raise ServeError(f"{file} is no archive of a captioner: it has no {handler}")
    here = importlib.metadata.version("torch").partition("+")[0]
    if exported_with.partition("+")[0] != here:
        raise ServeError(
            f"{file} was exported with torch {exported_with}, and this image has {here}; export "
            f"the captioner again with torch {here}"
        )


def main() -> int:
    """Check the archive that is named on the command line.

    Returns:
        The exit status.
    """
    if len(sys.argv) != 2:
        print("usage: python -m deploy.container.archive FILE", file=sys.stderr)
        return 2
    try:
        check_archive(Path(sys.argv[1]))
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
