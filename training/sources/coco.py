"""The source `coco`: COCO 2014 (Lin et al., arXiv 1405.0312) in the splits of Karpathy and Li.

Three archives are downloaded to `coco.downloads`: train2014.zip and val2014.zip with the pictures,
and caption_datasets.zip, whose file dataset_coco.json gives captions and split of each picture
(arXiv 1412.2306). Without a network, put the archives there by hand. Once the data set is made they
may be deleted. After a kill the next run resumes the download; unpacking starts from the beginning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)

from model.refusal import Refusal
from training.data.dataset import Picture, check_target, write_index, writing_dataset
from training.sources.disk_space import check_space
from training.sources.download import (
    RemoteFile,
    download,
    downloaded_bytes,
    file_sha256,
    look_up,
)
from training.sources.faults import clean_text, counted, listed, read_id
from training.sources.settings import Coco

#: Archives with pictures; in each, the pictures are in a folder of the same name.
PICTURE_ARCHIVES = ("train2014", "val2014")
#: The archive with dataset_coco.json.
CAPTION_ARCHIVE = "caption_datasets"
#: Names of splits in dataset_coco.json.
SPLITS = ("train", "val", "test", "restval")


def prepare(settings: Coco) -> None:
    """Download the archives that are missing, then write the data set, in place of an older one.

    Raises:
        Refusal: A wrong setting, no connection, a damaged archive, or too little room on the disk.
    """
    out, downloads = Path(settings.out).resolve(), Path(settings.downloads).resolve()
    if downloads.is_relative_to(out):
        raise Refusal(
            f"coco.downloads is {settings.downloads}, inside coco.out, which is replaced; give a "
            "folder outside of it"
        )
    check_target(out)
    files = _archives(settings)
    with contextlib.ExitStack() as stack:
        archives = {name: stack.enter_context(_opened(file)) for name, file in files.items()}
        pictures = _pictures(_index(archives[CAPTION_ARCHIVE]), settings.restval_to_train, archives)
        members = [archives[_archive_name(p)].getinfo(p.file_name) for p in pictures]
        with writing_dataset(settings.out) as folder:
            check_space({"coco.out": (out, sum(member.file_size for member in members))})
            for name in PICTURE_ARCHIVES:
                (folder / "images" / name).mkdir(parents=True)
            unpacked = []
            for picture in track(pictures, "unpacking", console=Console(stderr=True)):
                archive, name = archives[_archive_name(picture)], picture.file_name
                sha256 = _unpack(archive, name, folder / "images")
                unpacked.append(dataclasses.replace(picture, sha256=sha256))
            counts = write_index(folder, "COCO 2014, Karpathy's splits", unpacked)
    print(f"{settings.out}: {counts}")


def _archives(settings: Coco) -> dict[str, Path]:
    """File of each archive by its name; a missing one is downloaded, each SHA-256 is checked.

    Raises:
        Refusal: No connection, a wrong SHA-256, or too little room for archives and pictures.
    """
    addresses = {
        CAPTION_ARCHIVE: settings.captions_url,
        **dict.fromkeys(PICTURE_ARCHIVES, settings.images_url),
    }
    files = {name: Path(settings.downloads) / f"{name}.zip" for name in addresses}
    missing: dict[str, RemoteFile] = {}
    for name, file in files.items():
        if file.exists():
            _check(file, getattr(settings.sha256, name), name)
        else:
            missing[name] = look_up(f"{addresses[name].rstrip('/')}/{name}.zip")
    if not missing:
        return files
    sizes = {
        n: missing[n].size if n in missing else files[n].stat().st_size for n in PICTURE_ARCHIVES
    }
    to_download = sum(
        remote.size - downloaded_bytes(remote, files[n]) for n, remote in missing.items()
    )
    check_space(
        {
            "coco.downloads": (Path(settings.downloads), to_download),
            # JPEGs are about as large in a zip file as outside of it.
            "coco.out": (Path(settings.out), sum(sizes.values())),
        }
    )
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
        for name, remote in missing.items():
            task = progress.add_task(f"{name}.zip", total=remote.size)

            def show(done: int, task: Any = task) -> None:
                progress.update(task, completed=done)

            download(remote, files[name], getattr(settings.sha256, name), show)
    return files


def _check(file: Path, sha256: str | None, name: str) -> None:
    """Compare an archive that was not downloaded now with the SHA-256 of the settings.

    Raises:
        Refusal: They differ.
    """
    if sha256 is None:
        return
    print(f"checking {file} ...", file=sys.stderr)
    if (found := file_sha256(file)) != sha256.lower():
        raise Refusal(
            f"{file} has SHA-256 {found}, coco.sha256.{name} is {sha256}; delete the file and run "
            "the command again, or correct the setting"
        )


@contextmanager
def _refusing_damage(archive: zipfile.ZipFile | Path) -> Iterator[None]:
    """Turn an error of `zipfile` in the block into a Refusal that names the archive."""
    file = archive if isinstance(archive, Path) else archive.filename
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise Refusal(f"{file} is damaged ({error}); delete it and run the command again") from None


def _opened(file: Path) -> zipfile.ZipFile:
    with _refusing_damage(file):
        return zipfile.ZipFile(file)


def _unpack(archive: zipfile.ZipFile, name: str, folder: Path) -> str:
    """Write one member of an archive to a folder; `zipfile` compares its checksum at the end.

    Returns:
        SHA-256 of the file, in hex.
    """
    with _refusing_damage(archive):
        content = archive.read(name)
    (folder / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _index(archive: zipfile.ZipFile) -> list[Any]:
    """The list `images` of dataset_coco.json, in whichever folder of the archive that file is.

    Raises:
        Refusal: There is no such file or list.
    """
    names = [name for name in archive.namelist() if Path(name).name == "dataset_coco.json"]
    content = b""
    if names:
        with _refusing_damage(archive):
            content = archive.read(names[0])
    try:
        images = json.loads(content)["images"]
    except (KeyError, TypeError, ValueError, RecursionError):
        images = None
    if not isinstance(images, list):
        raise Refusal(f"{archive.filename} holds no dataset_coco.json with a list of images")
    return images


def _pictures(
    images: list[Any], restval_to_train: bool, archives: dict[str, zipfile.ZipFile]
) -> list[Picture]:
    """The pictures of dataset_coco.json.

    Args:
        images: Its list `images`.
        restval_to_train: Whether the pictures of split `restval` go to `train`.
        archives: Archive name -> archive; a picture must be in the archive of its folder.

    Raises:
        Refusal: Some entries have faults; all of them are listed.
    """
    members = {name: set(archives[name].namelist()) for name in PICTURE_ARCHIVES}
    pictures: dict[int, Picture] = {}
    faults: list[str] = []
    for number, image in enumerate(images):
        try:
            picture = _picture(image)
            if picture.image_id in pictures:
                raise ValueError(f"cocoid {picture.image_id} is already used by an image before it")
            if picture.file_name not in members[_archive_name(picture)]:
                raise ValueError(f"{picture.file_name} is not in its archive")
            if picture.split == "restval" and restval_to_train:
                picture = dataclasses.replace(picture, split="train")
            pictures[picture.image_id] = picture
        except ValueError as error:
            faults.append(f"images[{number}]: {error}")
    if faults or not pictures:
        raise Refusal(
            f"{counted(faults)} in dataset_coco.json of {archives[CAPTION_ARCHIVE].filename}; give "
            f"another archive:{listed(faults)}"
        )
    # An empty sentence is left out and is no fault: the user cannot correct an archive whose
    # SHA-256 is given.
    blank = sum(len(i["sentences"]) for i in images) - sum(
        len(picture.captions) for picture in pictures.values()
    )
    if blank:
        print(f"left out {blank} empty captions", file=sys.stderr)
    return list(pictures.values())


def _picture(image: Any) -> Picture:
    """The picture that an entry of `images` describes.

    Raises:
        ValueError: A field is missing or wrong, or the file name leads out of the folder.
    """
    image_id = read_id(image, "cocoid")
    folder, name = (clean_text(image.get(key), key) for key in ("filepath", "filename"))
    if folder not in PICTURE_ARCHIVES or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{folder}/{name} is no picture of {' or '.join(PICTURE_ARCHIVES)}")
    split = clean_text(image.get("split"), "split")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    sentences = image.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(s, dict) for s in sentences):
        raise ValueError("sentences must be a list of objects")
    raw = [sentence.get("raw") for sentence in sentences]
    captions = [clean_text(text, "raw") for text in raw if text is None or str(text).strip()]
    if not captions:
        raise ValueError("has no captions")
    return Picture(image_id, f"{folder}/{name}", captions, split)


def _archive_name(picture: Picture) -> str:
    """Name of the archive that a picture is in."""
    return picture.file_name.partition("/")[0]
