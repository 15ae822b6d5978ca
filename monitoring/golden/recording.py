"""Writes the reference of golden pictures, from a captioner that is trusted.

The captioner is asked as a server, or loaded from its artifact in this process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Set
from pathlib import Path

from client import CaptionClient
from model.refusal import Refusal
from monitoring.golden.asking import feature_of
from monitoring.golden.reference import EXPECTED, Golden, Limits, Reference, mean_feature

#: Gives what a picture file must give from now on, and the version of the captioner.
Trusted = Callable[[Path], tuple[Golden, str]]
#: File names of pictures.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def from_server(client: CaptionClient) -> Trusted:
    """A captioner that is served.

    Args:
        client: Of the server. Its errors are raised as `CaptionError`.
    """

    def ask(file: Path) -> tuple[Golden, str]:
        result = client.caption(file, features="base64")
        best = result.captions[0]
        feature = feature_of(result)
        return Golden(file, best.caption, best.log_prob, best.tokens, feature), result.version

    return ask


def from_artifact(folder: Path) -> Trusted:
    """A captioner in this process, without a server.

    Args:
        folder: Its artifact, as `training.export` writes it.

    Raises:
        Refusal: The artifact is damaged; when the result is called also for a file that is no
            picture.
    """
    from model.artifact import Artifact
    from model.image.decode import load_image
    from model.image.preprocessing import to_pixels

    captioner = Artifact.load(folder)

    def ask(file: Path) -> tuple[Golden, str]:
        image = load_image(file.read_bytes(), side=captioner.preprocessing.size)
        features = captioner.encode(to_pixels(image, captioner.preprocessing)[None])
        best = captioner.caption(features, captioner.defaults)[0][0]
        feature = mean_feature(features[0].numpy())
        golden = Golden(file, best.text, best.log_prob, best.tokens, feature)
        return golden, f"1.0-{captioner.info['weights_sha256'][:8]}"  # as deploy archives it

    return ask


def record(trusted: Trusted, source: str, folder: Path, limits: Limits) -> Reference:
    """Record every picture of a folder.

    Args:
        trusted: The captioner.
        source: Where it is, for people.
        folder: The pictures; `expected.json` is written into it.
        limits: How far replies may be from what is recorded.

    Raises:
        Refusal: The folder holds no picture, or the captioner gave two versions.
    """
    files = pictures_of(folder)
    found = [trusted(file) for file in files]
    versions = sorted({version for _, version in found})
    if len(versions) > 1:
        raise Refusal(
            f"{source} answered as versions {', '.join(versions)}; record when one is served"
        )
    pictures = tuple(golden for golden, _ in found)
    reference = Reference(versions[0], source, limits, pictures)
    reference.save(folder)
    return reference


def choose(trusted: Trusted, pool: Path, most: int, folder: Path) -> None:
    """Copy the pictures of a folder whose captions have the most different words.

    Swapped words show only in captions that have them. Each picture is the one that adds the most
    words to those before; of equal ones the one of whose caption the captioner is surest.

    Args:
        trusted: The captioner.
        pool: The folder to choose from.
        most: How many pictures.
        folder: Where they are copied to; it must have no pictures.

    Raises:
        Refusal: It has some, or there is none to choose from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(file.suffix.lower() in SUFFIXES for file in folder.iterdir()):
        raise Refusal(f"{folder} has pictures already; give another folder")
    found = {file: trusted(file)[0] for file in pictures_of(pool)}
    known: set[str] = set()
    for _ in range(min(most, len(found))):
        best = max(found, key=lambda file: _gain(found[file], known))
        known |= set(found.pop(best).caption.split())
        shutil.copyfile(best, folder / best.name)


def _gain(golden: Golden, known: Set[str]) -> tuple[int, float]:
    """How many words a caption adds, and how sure the captioner is of it."""
    return len(set(golden.caption.split()) - known), golden.log_prob / golden.tokens


def pictures_of(folder: Path) -> list[Path]:
    """The picture files of a folder, by name.

    Raises:
        Refusal: There is none.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        raise Refusal(f"{folder} holds no picture file; put some there before {EXPECTED} is made")
    return found
