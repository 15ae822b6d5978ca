"""The source `feedback`: better captions that people wrote at the gateway, with their pictures.

Only a picture that somebody left to train on can be used; docs/feedback.md says how. The split of
a picture depends on its bytes alone, so a picture that gets more corrections stays where it is.
Memory holds about 200 bytes for each picture.
"""

from __future__ import annotations

import dataclasses
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import track
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from feedback import schema
from feedback.database import described, open_database, read_url, reading, reason
from feedback.errors import DatabaseRefused
from feedback.reading import KeptPicture, content, counts, kept_pictures
from model.refusal import Refusal
from training.data.dataset import Picture, check_target, write_index, writing_dataset
from training.data.image_decoding import examine_files
from training.data.tar_picture import PictureFile
from training.sources.captions.caption_text import clean_captions
from training.sources.disk_space import check_space
from training.sources.faults import Faults, check_on_broken, counted, listed
from training.sources.settings import Feedback
from training.sources.splits import DrawnSplits, print_moves, split_fractions

#: First bytes of a picture file -> its extension.
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclasses.dataclass
class _Counts:
    """What was done with captions; printed at the end."""

    corrections: int = 0
    praised: int = 0
    disputed: int = 0
    not_asked_for: int = 0
    changes: Counter[str] = dataclasses.field(default_factory=Counter)


def prepare(settings: Feedback) -> None:
    """Write the data set of the corrections, in place of an older one.

    Raises:
        Refusal: A wrong setting, a database that cannot be used, or too few pictures.
    """
    fractions = split_fractions("feedback.fractions", settings.fractions)
    check_on_broken("feedback.on_broken", settings.on_broken)
    check_target(settings.out)
    with _opened(settings.database) as connection, writing_dataset(settings.out) as folder:
        size = counts(connection).picture_bytes
        check_space({"feedback.out": (Path(settings.out), size)})
        _write(connection, folder, settings, fractions)


def look_at(url: str) -> None:
    """Say what a database of feedback holds, and write nothing."""
    with _opened(url) as connection:
        found, said = counts(connection), _Counts()
        pictures = sum(1 for _ in _captioned(connection, False, said, Faults()))
        praised = _Counts()
        more = sum(1 for _ in _captioned(connection, True, praised, Faults()))
    print(f"recognised a database of feedback: {described(read_url(url))}")
    print(f"feedback: {found.feedback}, {found.corrections} of them with a correction")
    print(f"pictures to train on: {pictures} with {said.corrections} corrections")
    print(
        f"with feedback.thumbs_up=true: {more} pictures, and {praised.praised} captions more that "
        "got thumbs up"
    )
    print("Nothing was written, and no picture was decoded. Go on with:")
    print(
        "  .venv/bin/python -m training.prepare prepare.source=feedback "
        f"feedback.database={described(read_url(url))}"
    )


@contextmanager
def _opened(url: str) -> Iterator[Connection]:
    """A transaction that reads a database of feedback; errors of both are refusals."""
    try:
        engine = open_database(url)
        schema.check(engine)
        with reading(engine) as connection:
            yield connection
    except DatabaseRefused as error:
        raise Refusal(f"feedback.database: {error}") from None
    except DBAPIError as error:
        where = described(read_url(url))
        raise Refusal(f"feedback.database: {where} cannot be used: {reason(error)}") from None


def _write(
    connection: Connection, folder: Path, settings: Feedback, fractions: dict[str, float]
) -> None:
    """Copy the pictures, decode each, and write the index of those that can be used."""
    faults = Faults()
    hashes = array("Q")  # the names of the files, four numbers each
    for sha256, _ in _captioned(connection, settings.thumbs_up, _Counts(), Faults()):
        try:
            file = content(connection, sha256)
        except LookupError:  # deleted meanwhile, where the database shows it
            continue
        name = _name(sha256, file)
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(file)
        hashes.frombytes(bytes.fromhex(sha256))
    if not hashes:
        raise Refusal(
            f"{described(read_url(settings.database))} has no correction with a picture; people "
            'leave one with the tick at "Keep this picture", or programs with the field image'
        )
    names = _Names(folder / "images", hashes)
    results = examine_files(names, settings.max_pixels, settings.workers)
    bar = track(results, "checking", len(names), console=Console(stderr=True))
    drawn, broken = DrawnSplits(fractions), set[int]()
    for index, found in enumerate(bar):
        if found.fault:
            faults.append(f"picture {names.sha256(index)}: {found.fault.partition(': ')[2]}")
            broken.add(index)
            continue
        drawn.add(f"{settings.seed}/{names.sha256(index)}", index + 1, names.sha256(index))
    if faults and settings.on_broken == "stop":
        raise Refusal(
            f"{counted(faults)}; leave out what they name with feedback.on_broken=skip:"
            f"{listed(faults)}"
        )
    moves = drawn.moves(())
    if set(drawn.empty()) - set(moves.values()):
        raise Refusal(
            f"of {len(names) - len(broken)} pictures with a correction none came to "
            f"{' and '.join(drawn.empty())} by feedback.fractions {fractions}, and there are too "
            "few to give each split one; wait for more, or change feedback.fractions"
        )
    print_moves({names.sha256(index - 1): split for index, split in moves.items()})
    said, unusable = _Counts(), Faults()

    def pictures() -> Iterator[Picture]:
        captioned = _captioned(connection, settings.thumbs_up, said, unusable)
        for index, (sha256, captions) in enumerate(captioned):
            if index in broken:
                names[index].unlink()
                continue
            split = moves.get(index + 1) or drawn.split(f"{settings.seed}/{sha256}")
            name = names[index].relative_to(folder / "images").as_posix()
            yield Picture(index + 1, name, captions, split, sha256=sha256)

    written = write_index(folder, "corrections of the gateway's users", pictures())
    _print_end(settings, written, said, unusable, faults)


def _captioned(
    connection: Connection, thumbs_up: bool, said: _Counts, faults: Faults
) -> Iterator[tuple[str, list[str]]]:
    """SHA-256 of each picture with a caption to train on, and its captions, each once.

    Args:
        connection: Of a transaction that reads, so that each call gives the same pictures.
        thumbs_up: Whether captions that got thumbs up are such captions.
        said: Counts them; added to.
        faults: Corrections that are no captions are appended.
    """
    for picture in kept_pictures(connection):
        captions = _cleaned(picture, picture.corrections, said, faults)
        said.corrections += len(captions)
        praised = dict.fromkeys(picture.praised)
        agreed = [caption for caption in praised if caption not in picture.corrected]
        said.disputed += len(praised) - len(agreed)
        if thumbs_up:
            more = _cleaned(picture, agreed, said, faults)
            more = [caption for caption in more if caption not in captions]
            said.praised += len(more)
            captions += more
        else:
            said.not_asked_for += len(agreed)
        if captions:
            yield picture.sha256, captions


def _cleaned(
    picture: KeptPicture, texts: Sequence[str], said: _Counts, faults: Faults
) -> list[str]:
    found: list[str] = []
    wrong: list[str] = []
    for text in texts:
        found += clean_captions(text, "correction", said.changes, wrong)
    for fault in wrong:
        faults.append(f"{picture.sha256}: {fault}")
    return list(dict.fromkeys(found))


class _Names(Sequence[PictureFile]):
    """The files of the pictures, by index; each is found by its SHA-256."""

    def __init__(self, images: Path, hashes: array[int]) -> None:
        self._images, self._hashes = images, hashes

    def __len__(self) -> int:
        return len(self._hashes) // 4

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # takes no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        return next((self._images / self.sha256(index)[:2]).glob(f"{self.sha256(index)}.*"))

    def sha256(self, index: int) -> str:
        return self._hashes[4 * index : 4 * index + 4].tobytes().hex()


def _name(sha256: str, file: bytes) -> str:
    """Where a picture lies: in one of 256 folders, with the extension of its format."""
    kinds = [kind for signature, kind in _SIGNATURES.items() if file.startswith(signature)]
    kind = ".webp" if file[8:12] == b"WEBP" else (kinds or [".img"])[0]
    return f"{sha256[:2]}/{sha256}{kind}"


def _print_end(
    settings: Feedback, written: str, said: _Counts, unusable: Faults, broken: Faults
) -> None:
    for what, faults in (("no captions", unusable), ("broken pictures", broken)):
        if faults:
            print(f"left out, {what}: {counted(faults)}:{listed(faults)}", file=sys.stderr)
    for change, count in said.changes.items():
        if count:
            print(f"{count} captions {change}", file=sys.stderr)
    print(
        f"captions: {said.corrections} corrections, {said.praised} with thumbs up; left out: "
        f"{said.disputed} with thumbs up that somebody corrected"
        + (f", {said.not_asked_for} with thumbs up alone" if not settings.thumbs_up else "")
    )
    print(f"{settings.out}: {written}")
