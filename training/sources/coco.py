"""The source that is COCO 2014 (Lin et al., arXiv 1405.0312), in the splits of Karpathy and Li.

Three archives are downloaded: train2014.zip, val2014.zip, and caption_datasets.zip with
dataset_coco.json, which gives each picture its captions and split (arXiv 1412.2306). They stay in
`coco.downloads`; whoever lacks the network may put them there by hand, and whoever lacks the room
may delete them once the data set is made. A killed run goes on with the download where it was;
unpacking begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
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
from training.sources.download import Remote, bytes_at_hand, download, file_sha256, look_up
from training.sources.faults import counted, listed
from training.sources.fields import clean_text, read_id
from training.sources.settings import Coco

#: Archives with pictures; the pictures lie in a folder of the archive's name.
PICTURES = ("train2014", "val2014")
CAPTIONS = "caption_datasets"
SPLITS = ("train", "val", "test", "restval")


def prepare(settings: Coco) -> None:
    """Download what is missing, then make the data set in place of an older one.

    Raises:
        Refusal: Settings that make no data set, no connection, damaged archives, a full disk.
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
        pictures = _pictures(_index(archives[CAPTIONS]), settings.restval_to_train, archives)
        members = [archives[_place(p)].getinfo(p.file_name) for p in pictures]
        with writing_dataset(settings.out) as folder:
            check_space({"coco.out": (out, sum(member.file_size for member in members))})
            for name in PICTURES:
                (folder / "images" / name).mkdir(parents=True)
            for picture in track(pictures, "unpacking", console=Console(stderr=True)):
                _unpack(archives[_place(picture)], picture.file_name, folder / "images")
            counts = write_index(folder, "COCO 2014, Karpathy's splits", pictures)
    print(f"{settings.out}: {counts}")


def _archives(settings: Coco) -> dict[str, Path]:
    """The archives, whole and checked; those that are missing are downloaded."""
    addresses = {CAPTIONS: settings.captions_url, **dict.fromkeys(PICTURES, settings.images_url)}
    files = {name: Path(settings.downloads) / f"{name}.zip" for name in addresses}
    missing: dict[str, Remote] = {}
    for name, file in files.items():
        if file.exists():
            _check(file, getattr(settings.sha256, name), name)
        else:
            missing[name] = look_up(f"{addresses[name].rstrip('/')}/{name}.zip")
    if not missing:
        return files
    sizes = {n: missing[n].size if n in missing else files[n].stat().st_size for n in PICTURES}
    to_come = sum(remote.size - bytes_at_hand(remote, files[n]) for n, remote in missing.items())
    check_space(
        {
            "coco.downloads": (Path(settings.downloads), to_come),
            # pictures hardly shrink by packing
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
    """An archive that was there already has the SHA-256 of the settings."""
    if sha256 is None:
        return
    print(f"checking {file} ...", file=sys.stderr)
    if (found := file_sha256(file)) != sha256.lower():
        raise Refusal(
            f"{file} has SHA-256 {found}, coco.sha256.{name} is {sha256}; delete the file and run "
            "the command again, or correct the setting"
        )


@contextmanager
def _sound(archive: zipfile.ZipFile | Path) -> Iterator[None]:
    """Damage met inside the block is refused with the name of the archive."""
    file = archive if isinstance(archive, Path) else archive.filename
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise Refusal(f"{file} is damaged ({error}); delete it and run the command again") from None


def _opened(file: Path) -> zipfile.ZipFile:
    with _sound(file):
        return zipfile.ZipFile(file)


def _unpack(archive: zipfile.ZipFile, name: str, folder: Path) -> None:
    """One member; zipfile compares its checksum at the end."""
    with _sound(archive), archive.open(name) as packed, (folder / name).open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)


def _index(archive: zipfile.ZipFile) -> list[Any]:
    """`images` of dataset_coco.json, wherever in the archive it is."""
    names = [name for name in archive.namelist() if Path(name).name == "dataset_coco.json"]
    content = b""
    if names:
        with _sound(archive):
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
    """Each picture of the index, which must be in its archive.

    Raises:
        Refusal: Everything that is wrong with the index, at once.
    """
    members = {place: set(archives[place].namelist()) for place in PICTURES}
    pictures: dict[int, Picture] = {}
    faults: list[str] = []
    for number, image in enumerate(images):
        try:
            picture = _picture(image)
            if picture.image_id in pictures:
                raise ValueError(f"cocoid {picture.image_id} stands in an image before it")
            if picture.file_name not in members[_place(picture)]:
                raise ValueError(f"{picture.file_name} is not in its archive")
            if picture.split == "restval" and restval_to_train:
                picture = dataclasses.replace(picture, split="train")
            pictures[picture.image_id] = picture
        except ValueError as error:
            faults.append(f"images[{number}]: {error}")
    if faults or not pictures:
        raise Refusal(
            f"{counted(faults)} in dataset_coco.json of {archives[CAPTIONS].filename}; give "
            f"another archive:{listed(faults)}"
        )
    # Nobody can mend an archive with a known SHA-256: sentences without a word stay out.
    blank = sum(len(i["sentences"]) for i in images) - sum(
        len(picture.captions) for picture in pictures.values()
    )
    if blank:
        print(f"left out {blank} captions without a word", file=sys.stderr)
    return list(pictures.values())


def _picture(image: Any) -> Picture:
    """An entry of the index; its name stays inside the folder of its archive."""
    image_id = read_id(image, "cocoid")
    place, name = (clean_text(image.get(key), key) for key in ("filepath", "filename"))
    if place not in PICTURES or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{place}/{name} is no picture of {' or '.join(PICTURES)}")
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
    return Picture(image_id, f"{place}/{name}", captions, split)


def _place(picture: Picture) -> str:
    """The archive a picture is in."""
    return picture.file_name.partition("/")[0]
