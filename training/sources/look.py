"""Says what captions and pictures a folder or tar files hold, and changes nothing.

    python -m training.prepare --look PATH

No picture is decoded. The languages are a guess from letters alone: it tells Greek from Latin, and
not English from French.
"""

from __future__ import annotations

import dataclasses
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from model.refusal import Refusal
from training.config import Config
from training.data.dataset import CaptionDataset
from training.sources import feedback
from training.sources.captions.entry import Reading
from training.sources.captions.read_folder import read_folder
from training.sources.captions.recognise import split_in_name
from training.sources.faults import counted, listed
from training.sources.folder import is_data_set, recognise_folder
from training.sources.settings import SplitFractions
from training.sources.tar_samples import read_samples
from training.sources.webdataset import find_shards, shard_splits

#: Captions whose letters are looked at.
SAMPLE = 10_000
_SCRIPTS = {"CJK": "Chinese characters", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


def look(path: str, config: Config) -> None:
    """Print what is there, and the command to go on with.

    Args:
        path: A folder, a caption file, a tar file, a pattern of tar files, or the URL of a database
            of feedback.
        config: Settings of the sources.

    Raises:
        Refusal: Nothing is recognised.
    """
    place = Path(path)
    if "://" in path:
        feedback.look_at(path)
    elif place.is_dir() and is_data_set(place):
        data = CaptionDataset.load(place)
        counts = {name: len(ids) for name, ids in data.splits.items()}
        print(f"recognised a data set of this program: {len(data.files)} pictures")
        print(f"splits: {_counts(counts)}")
        print(f"Use it as it is: features.data={path} train.data={path} evaluate.data={path}")
    elif path.endswith(".tar") or (place.is_dir() and any(place.glob("*.tar"))):
        _look_at_shards(path, config)
    elif place.exists():
        _look_at_folder(place, config)
    else:
        raise Refusal(f"{path} does not exist")


def _look_at_folder(place: Path, config: Config) -> None:
    settings = config.folder
    if not place.is_dir():
        settings.captions, place = place.name, place.parent
    form = recognise_folder(place.resolve(), settings)
    print(form, flush=True)
    captions = read_folder(form)
    pictures, lengths = captions.pictures, Lengths()
    per_picture = [lengths.add(pictures.captions(n)) for n in range(len(pictures))]
    in_table = len(pictures) and pictures[0].row is not None
    files = len(pictures) if in_table else len(captions.names)
    print(
        f"pictures: {files} in {'tables' if in_table else 'the folder'}, {len(pictures)} of them "
        f"with a caption"
    )
    lengths.print(per_picture)
    given = pictures.split_counts()
    _print_splits(given, settings.fractions, "folder")
    captions.print_loose()
    words = [f"folder.path={place}", "experiment=folder"]
    names = ("captions", "file_column", "caption_column", "text_extension")
    words += [f"folder.{n}={getattr(settings, n)}" for n in names if getattr(settings, n)]
    if settings.text_lines != "one":
        words.append(f"folder.text_lines={settings.text_lines}")
    if "train" in given and "val" not in given:
        words.append(f"folder.val_share={settings.val_share or 0.1}")
    _print_end(captions.reading, words, "folder")


def _look_at_shards(path: str, config: Config) -> None:
    settings = config.webdataset
    tars = find_shards(path)
    splits = shard_splits(tars, settings.splits)
    print(f"recognised WebDataset: {len(tars)} shards", flush=True)
    reading, lengths = Reading(), Lengths()
    counts: Counter[str] = Counter()
    per_picture = []
    for tar in tars:
        samples = read_samples(tar, reading, settings.picture)
        per_picture += [lengths.add(sample.captions) for sample in samples]
        counts[splits.get(tar, "")] += len(samples)
    print(f"pictures: {len(per_picture)} with a caption")
    lengths.print(per_picture)
    _print_splits(counts if splits else {}, settings.fractions, "webdataset")
    if told := {tar.name: split_in_name(tar.name) for tar in tars} if not splits else {}:
        named = sorted({split for split in told.values() if split})
        if len(named) > 1:
            print(f"  names of shards tell {', '.join(named)}; give their patterns:")
            print('  \'webdataset.splits={train: "train-*.tar", val: "val-*.tar"}\'')
    if left_out := [f"{count} {what}" for what, count in reading.left_out.items()]:
        print(f"left out, and no fault:{listed(left_out)}")
    words = ["prepare.source=webdataset", f"webdataset.shards={path}"]
    words += [f"webdataset.picture={settings.picture}"] if settings.picture else []
    patterns = {name: one for name, one in dataclasses.asdict(settings.splits).items() if one}
    if patterns:
        given = ", ".join(f'{name}: "{one}"' for name, one in patterns.items())
        words.append(f"webdataset.splits={{{given}}}")
    _print_end(reading, words, "webdataset")


class Lengths:
    """Lengths and letters of captions."""

    def __init__(self) -> None:
        self._words: Counter[int] = Counter()
        self._letters: Counter[str] = Counter()
        self._seen = 0

    def add(self, captions: list[str]) -> int:
        """Add the captions of a picture; return their number."""
        for text in captions:
            self._words[len(text.split())] += 1
            self._seen += 1
            if self._seen <= SAMPLE:
                self._letters.update(_scripts(text))
        return len(captions)

    def print(self, per_picture: Iterable[int]) -> None:
        """Print what was added, and how many captions a picture has."""
        numbers = Counter(n for n in per_picture if n)
        usual = f"{min(numbers)} to {max(numbers)} for each picture" if numbers else "none"
        print(f"captions: {self._seen}; {usual}")
        if not self._seen:
            return
        lengths = np.repeat(list(self._words), list(self._words.values()))
        print(
            f"length: {int(np.median(lengths))} words in the middle, "
            f"{int(np.quantile(lengths, 0.99))} at most in 99 of 100, {lengths.max()} in the "
            "longest"
        )
        letters = sum(self._letters.values()) or 1
        shares = [f"{name} {n / letters:.0%}" for name, n in self._letters.most_common(4)]
        print(
            f"letters: {', '.join(shares) or 'none'} (of {min(self._seen, SAMPLE)} captions; a "
            "guess of the script, not of the language)"
        )


def _scripts(text: str) -> Iterable[str]:
    """The script of each letter, by the first word of its name in Unicode."""
    if text.isascii():
        return ["Latin"] * sum(map(str.isalpha, text))
    names = (unicodedata.name(letter, "unknown").split()[0] for letter in text if letter.isalpha())
    return [_SCRIPTS.get(name, name.capitalize()) for name in names]


def _print_splits(given: dict[str, int], fractions: SplitFractions, block: str) -> None:
    if given:
        print(f"splits: {_counts(given)}")
        return
    drawn = f"train {fractions.train}, val {fractions.val}, test {fractions.test}"
    print(f"splits: none are given; {block}.fractions draws {drawn}")


def _counts(splits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in splits.items())


def _print_end(reading: Reading, words: list[str], block: str) -> None:
    """Print the faults, and the command to go on with."""
    print(
        f"faults: {counted(reading.faults) if reading.faults else 'none'}{listed(reading.faults)}"
    )
    if reading.faults:
        words.append(f"{block}.on_broken=skip")
        print("Correct them, or leave out what they name with the last setting below.")
    command = " ".join(shlex.quote(word) for word in words)
    print("Nothing was written, and no picture was decoded. Go on with:")
    print(f"  .venv/bin/python -m training.prepare {command}")
