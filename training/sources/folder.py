"""The source `folder`: a folder of pictures with captions in one of the forms that are in use.

Which form it is, is told by looking (see `training.sources.captions.forms`). Before anything is
written, every caption is checked and every picture decoded, and all faults are listed together. The
pictures are copied: a later change of the folder does not change the data set. The cost is the disk
space of a second copy. Memory holds about 250 bytes for each picture and 100 for each caption.
"""

from __future__ import annotations

import shutil
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.dataset import Picture, check_target, write_index, writing_dataset
from training.data.id_index import IdIndex
from training.data.image_decoding import examine_files
from training.sources.captions.collected import Collected
from training.sources.captions.columns import Named
from training.sources.captions.forms import Form
from training.sources.captions.read_folder import FolderCaptions, PictureSequence, read_folder
from training.sources.captions.recognise import recognise
from training.sources.checked_pictures import CheckedPictures
from training.sources.disk_space import check_space
from training.sources.faults import check_on_broken, counted, listed
from training.sources.settings import Folder
from training.sources.splits import DrawnSplits, KnownPictures, print_moves, split_fractions

#: First bytes of a picture file -> its extension, for pictures that have no file name.
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp"}


def prepare(settings: Folder) -> None:
    """Check the folder, then write its data set, in place of an older one.

    Raises:
        Refusal: A wrong setting, faults in the folder, or too little room on the disk.
    """
    root = _root(settings)
    fractions = split_fractions("folder.fractions", settings.fractions)
    if not 0 <= settings.val_share < 1:
        raise Refusal(
            f"folder.val_share is {settings.val_share}; it must be at least 0 and less than 1"
        )
    check_target(settings.out)
    form = recognise_folder(root, settings)
    print(form)
    captions = read_folder(form)
    captions.print_uncaptioned()
    faults = captions.reading.faults
    drawn = DrawnSplits(fractions)
    checked = _checked(captions, settings, drawn)
    if faults and settings.on_broken == "stop":
        captions.print_loose()
        raise Refusal(
            f"{counted(faults)} in {root}; correct them, or leave out what they name with "
            f"folder.on_broken=skip:{listed(faults)}"
        )
    if not len(checked):
        raise Refusal(f"{root} has no picture that can be used:{listed(faults)}")
    moves: dict[int, str] = {}
    if captions.pictures.has_splits:
        _note_missing_splits(checked, settings)
    else:
        moves = _moves(checked, drawn, fractions)
        print_moves(
            {
                str(captions.pictures[number]): moves[image_id]
                for number, image_id, *_ in (checked if moves else ())
                if image_id in moves
            }
        )
    with writing_dataset(settings.out) as folder:
        check_space({"folder.out": (Path(settings.out), checked.size)})
        pictures = _copied(captions, checked, moves, folder)
        counts = write_index(folder, f"pictures of {root.name}", pictures)
    if faults:
        print(f"left out for {counted(faults)}:{listed(faults)}", file=sys.stderr)
    captions.print_loose()
    print(f"{settings.out}: {counts}")


def recognise_folder(root: Path, settings: Folder) -> Form:
    """The form of the captions of a folder, by the settings of this source.

    Raises:
        Refusal: Nothing is recognised, or more than one form is, or a setting is wrong.
    """
    if settings.text_lines not in ("one", "each"):
        raise Refusal(f"folder.text_lines is {settings.text_lines!r}; it must be one or each")
    given = Named(
        *(name and name.strip().lower() for name in (settings.file_column, settings.caption_column))
    )
    each_line = settings.text_lines == "each"
    return recognise(root, settings.captions, given, settings.text_extension, each_line)


def _root(settings: Folder) -> Path:
    """The folder of the setting `folder.path`, with links resolved.

    Raises:
        Refusal: It cannot be used, or `folder.on_broken` or `folder.out` cannot.
    """
    if settings.path is None:
        raise Refusal("folder.path is not set; give the folder of your pictures: folder.path=DIR")
    if not Path(settings.path).is_dir():
        raise Refusal(f"folder.path is {settings.path}, which is no folder")
    check_on_broken("folder.on_broken", settings.on_broken)
    root, out = Path(settings.path).resolve(), Path(settings.out).resolve()
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise Refusal(
            f"folder.out is {settings.out} and folder.path is {settings.path}; neither may lie in "
            "the other, as an older data set is replaced: give another folder.out"
        )
    if is_data_set(root):
        raise Refusal(
            f"{root} is a data set already (it has captions.json and split.json); use it as it "
            f"is: features.data={settings.path} train.data={settings.path}"
        )
    return root


def is_data_set(root: Path) -> bool:
    """Whether a folder is a data set that another command has made."""
    return (root / "captions.json").exists() and (root / "split.json").exists()


def _checked(captions: FolderCaptions, settings: Folder, drawn: DrawnSplits) -> CheckedPictures:
    """The pictures that can be used.

    The split is the one of the caption file. Where the file names none, it is drawn by the seed and
    the picture's name, or the picture's bytes if it has no name. A fault is added for each picture
    that cannot be decoded or that has the same bytes as a picture of another split.
    """
    pictures, faults = captions.pictures, captions.reading.faults
    numbers = array("q", pictures.captioned())
    files = PictureSequence(captions, numbers)
    results = examine_files(files, settings.max_pixels, settings.workers)
    bar = track(results, "checking", len(numbers), console=Console(stderr=True))
    known = KnownPictures(lambda number: f"{pictures[number]} ({pictures[number].where})")
    checked = CheckedPictures(known)
    from_train = DrawnSplits({"val": settings.val_share, "train": 1 - settings.val_share})
    for number, found in zip(numbers, bar, strict=True):
        picture = pictures[number]
        if found.fault:
            faults.append(f"{picture.where}: {found.fault}")
            continue
        key = f"{settings.seed}/{picture.path if picture.row is None else found.sha256}"
        split = picture.split or drawn.split(key)
        if picture.split == "train" and settings.val_share:
            split = from_train.split(key)
        try:
            known.check(found.sha256, split, number)
        except ValueError as error:
            faults.append(f"{picture.where}: {picture} {error}")
            continue
        own_id = picture.image_id if pictures.has_ids else None
        image_id = len(checked) + 1 if own_id is None else own_id
        if picture.split is None:
            drawn.add(key, image_id, found.sha256)
        size = 0 if picture.row is not None else (captions.form.root / picture.path).stat().st_size
        checked.add(number, image_id, split, found.sha256, size)
    if pictures.lost_ids:
        captions.reading.notes.append(
            "the ids of the images are no whole numbers, or not unique; the pictures are numbered"
        )
    tables = {pictures[n].path for n in checked.numbers if pictures[n].row is not None}
    checked.size += sum((captions.form.root / path).stat().st_size for path in tables)
    return checked


def _copied(
    captions: FolderCaptions, checked: CheckedPictures, moves: dict[int, str], folder: Path
) -> Iterator[Picture]:
    """The pictures of the data set, each once it is copied to its place."""
    # The data set has a folder `images` itself: images/a.jpg becomes images/a.jpg there, and not
    # images/images/a.jpg, unless the user's folder has another a.jpg beside `images`.
    paths = IdIndex(captions.pictures.path_keys())
    bar = track(range(len(checked)), "copying", console=Console(stderr=True))
    for index in bar:
        number, image_id, split, sha256 = checked[index]
        picture, file = captions.pictures[number], captions.file(number)
        if isinstance(file, Path):
            short = picture.path.removeprefix("images/")
            taken = short != picture.path and paths.rows(hash(short)) >= 0
            name = _place(folder, picture.path if taken else short)
            shutil.copyfile(file, folder / "images" / name)
        else:
            content = file.read_bytes()
            name = _place(folder, _name_in_table(picture, content))
            (folder / "images" / name).write_bytes(content)
        yield Picture(
            image_id,
            name,
            captions.pictures.captions(number),
            moves.get(image_id, split),
            sha256=sha256,
        )


def _place(folder: Path, name: str) -> str:
    """The same name, once the folder of the picture is there."""
    (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    return name


def _name_in_table(picture: Collected, content: bytes) -> str:
    """A file name for a picture that a table holds."""
    kinds = [kind for signature, kind in _SIGNATURES.items() if content.startswith(signature)]
    kind = ".webp" if content[8:12] == b"WEBP" else (kinds or [".img"])[0]
    return f"{picture.path.rpartition('.')[0]}/{picture.row:08d}{kind}"


def _moves(
    checked: CheckedPictures, drawn: DrawnSplits, fractions: dict[str, float]
) -> dict[int, str]:
    """The pictures that go to splits to which none came by chance.

    Raises:
        Refusal: There are too few pictures to give each split one.
    """
    moves = drawn.moves(checked.known.repeated)
    if set(drawn.empty()) - set(moves.values()):
        raise Refusal(
            f"of {len(checked)} pictures none came to {' and '.join(drawn.empty())} by "
            f"folder.fractions {fractions}, and there are too few to give each split one; add "
            "pictures, change folder.fractions, or give the split of each picture in the caption "
            "file"
        )
    return moves


def _note_missing_splits(checked: CheckedPictures, settings: Folder) -> None:
    """Print which of the splits that training reads have no picture; not a fault."""
    missing = [split for split in ("train", "val") if split not in checked.splits()]
    if not missing:
        return
    advice = ""
    if missing == ["val"]:
        advice = "; folder.val_share=0.1 takes a tenth of train for it"
    print(
        f"note: no picture is in split {' or '.join(missing)}; the data set can be used for an "
        f"evaluation, but training needs both{advice}",
        file=sys.stderr,
    )
